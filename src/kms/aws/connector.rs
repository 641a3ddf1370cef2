//! Carries the SDK's requests over the agent's own HTTP client: one configuration of TLS, no redirections, bounded answers.
//! The times that the SDK sets for a request (it gives a metadata service that is not there up soon) are kept.

use super::super::http::{Ask, Http};
use super::super::{Failure, KmsError};
use aws_sdk_kms::error::SdkError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use std::error::Error as StdError;
use std::time::Duration;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The agent's client, as the SDK wants one.
#[derive(Clone, Debug)]
pub struct Connector {
    http: Http,
    /// For connecting and the answer together.
    within: Option<Duration>,
}

impl Connector {
    pub fn new(http: Http) -> Connector {
        Connector { http, within: None }
    }
}

impl HttpClient for Connector {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let times = [settings.connect_timeout(), settings.read_timeout()];
        let within = times.into_iter().flatten().reduce(|one, other| one + other);
        SharedHttpConnector::new(Connector {
            http: self.http.clone(),
            within,
        })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move { connector.carry(request).await })
    }
}

impl Connector {
    async fn carry(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request
            .try_into_http1x()
            .map_err(|error| ConnectorError::user(error.into()))?;
        let (parts, body) = request.into_parts();
        let body = body
            .bytes()
            .ok_or_else(|| ConnectorError::user("a streaming body".into()))?;
        let ask = Ask {
            method: parts.method,
            url: parts.uri.to_string(),
            headers: parts.headers,
            body: Zeroizing::new(body.to_vec()),
        };
        let sent = self.http.send(ask);
        let reply = match self.within {
            None => sent.await,
            Some(within) => timeout(within, sent)
                .await
                .map_err(|late| ConnectorError::timeout(late.into()))?,
        };
        let reply = reply.map_err(|error| match error.failure {
            Failure::Unreachable => ConnectorError::io(error.into()),
            _ => ConnectorError::other(error.into(), None),
        })?;
        let mut answer = http::Response::new(SdkBody::from(reply.body.to_vec()));
        *answer.status_mut() = reply.status;
        *answer.headers_mut() = reply.headers;
        HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
    }
}

/// Why there was no answer: what [`Http`] said, or that there are no credentials.
pub fn failure<E>(error: &SdkError<E, HttpResponse>) -> KmsError
where
    E: StdError + 'static,
{
    let mut credentials = false;
    let mut said = None;
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(at) = cause {
        credentials |= at.is::<aws_credential_types::provider::error::CredentialsError>();
        if let Some(found) = at.downcast_ref::<KmsError>() {
            said = Some(found);
        }
        cause = at.source();
    }
    match (credentials, said) {
        // Where credentials come from is not the KMS: nothing that is said there is its no.
        (true, Some(said)) => KmsError::new(
            Failure::Unreachable,
            format!("no credentials: {}", said.detail),
        ),
        (true, None) => KmsError::new(
            Failure::Unreachable,
            "no credentials: none of AWS's usual places has any that are in force",
        ),
        (false, Some(said)) => said.clone(),
        (false, None) => KmsError::new(Failure::Unreachable, "no answer"),
    }
}
