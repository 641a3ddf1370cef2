//! Whose identity it is: tokens from the metadata service, or from the directory for an application's secret or federated token.

use super::{App, Login};
use crate::kms::bearer::{Granted, Source, granted};
use crate::kms::http::{Ask, FORM, Http, form};
use crate::kms::{Answer, Failure, KmsError};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use std::str;
use zeroize::Zeroizing;

/// Says that it is meant: no proxy adds it, and no link can.
const METADATA: HeaderName = HeaderName::from_static("metadata");
/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub struct Tokens {
    pub http: Http,
    pub login: Login,
    /// What the tokens are for, as the vault said: `https://vault.azure.net`.
    pub resource: String,
}

impl Source for Tokens {
    fn fetch(&self) -> Answer<'_, Granted> {
        Box::pin(async {
            match &self.login {
                Login::Managed {
                    metadata,
                    client_id,
                } => self.of_the_machine(metadata, client_id.as_deref()).await,
                Login::ClientSecret { app, secret } => {
                    let secret = secret.read().await?;
                    self.of_an_app(app, &[("client_secret", &secret)]).await
                }
                Login::Workload { app, token } => {
                    let token = token.read().await?;
                    let assertion = [
                        ("client_assertion_type", ASSERTION_TYPE),
                        ("client_assertion", &token),
                    ];
                    self.of_an_app(app, &assertion).await
                }
            }
        })
    }
}

impl Tokens {
    async fn of_the_machine(
        &self,
        address: &str,
        client_id: Option<&str>,
    ) -> Result<Granted, KmsError> {
        let mut query = vec![
            ("api-version", "2018-02-01"),
            ("resource", self.resource.as_str()),
        ];
        query.extend(client_id.map(|id| ("client_id", id)));
        // A form is a query.
        let query = form(&query);
        let query = str::from_utf8(&query).unwrap_or_default();
        let ask = Ask {
            method: Method::GET,
            url: format!("{address}/metadata/identity/oauth2/token?{query}"),
            headers: HeaderMap::from_iter([(METADATA, HeaderValue::from_static("true"))]),
            body: Zeroizing::default(),
        };
        let reply = self.http.send(ask).await?;
        if reply.status == StatusCode::NOT_FOUND {
            // It says so while it is being renewed itself.
            let what = "the metadata service has no answer yet";
            return Err(reply.failure(Failure::Unreachable, what));
        }
        granted(&reply)
    }

    /// RFC 6749 section 4.4.2.
    async fn of_an_app(&self, app: &App, proof: &[(&str, &str)]) -> Result<Granted, KmsError> {
        let scope = format!("{}/.default", self.resource);
        let mut fields = vec![
            ("grant_type", "client_credentials"),
            ("client_id", &app.client_id),
            ("scope", &scope),
        ];
        fields.extend(proof);
        let ask = Ask {
            method: Method::POST,
            url: format!("{}/{}/oauth2/v2.0/token", app.authority, app.tenant),
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, FORM)]),
            body: form(&fields),
        };
        granted(&self.http.send(ask).await?)
    }
}
