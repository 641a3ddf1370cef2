//! Behind a CONNECT to a host that a policy names, and that is not known to speak TLS: what the client shows is what it gets.
//!
//! Plain HTTP is served, under the policy's routes for the host. TLS ends here as it does for other hosts, and only once the host's own
//! certificate was seen to be good. Anything else, and a client that waits for the server to speak first, is refused: nothing passes unseen.

use super::connection::{Beginning, Service};
use super::first::{First, look};
use super::stream::Stream;
use crate::audit::RequestId;
use crate::error::Code;
use crate::intercept::{Alert, Authority};
use crate::proxy::Shown;
use bytes::BytesMut;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

impl Service {
    /// Waits for what the client shows, for as long as for a head, and says what it goes on in. A connection that is not worth more is none; what
    /// became of it is on record, under the `id` of the access that opened it.
    pub(super) async fn meet(
        &self,
        authority: &Authority,
        mut stream: Stream,
        mut begun: BytesMut,
        shown: Shown,
        id: Option<RequestId>,
    ) -> Option<(Beginning, bool)> {
        let (born, client) = (Instant::now(), stream.client());
        let deadline = born + self.patience.head;
        let passed = |outcome| self.passed(id, outcome, born);
        let first = match timeout_at(deadline, look(&mut stream, &mut begun)).await {
            Ok(Ok(first)) => first,
            Ok(Err(gone)) => {
                passed(gone);
                return None;
            }
            Err(_) => {
                passed(if begun.is_empty() {
                    "silent"
                } else {
                    "timeout"
                });
                return None;
            }
        };
        let Shown { target, plain } = shown;
        match first {
            First::Http => {
                let http2 = self.shows_http2(&mut stream, &mut begun, deadline).await;
                let upstream = match http2 {
                    false => plain,
                    // By prior knowledge, to an upstream that is spoken to so.
                    true => {
                        let target = target.with_tls(false).in_http2(true);
                        match self.proxy.upstream_for(&target).await {
                            Some(Ok(upstream)) => upstream,
                            refused => {
                                passed(word(refused));
                                return None;
                            }
                        }
                    }
                };
                passed("plain");
                let beginning = Beginning {
                    stream,
                    begun,
                    born: Instant::now(),
                    client,
                    upstream: Some(Arc::new(upstream)),
                    address: None,
                };
                Some((beginning, http2))
            }
            First::Tls(_) | First::Unreadable => {
                let upstream = match authority.vouches_for(target.host()) {
                    true => self.proxy.upstream_for(&target).await,
                    false => Some(Err(Code::NotVouched.into())),
                };
                match upstream {
                    Some(Ok(upstream)) => {
                        let host = target.host();
                        self.intercept(authority, stream, begun, host, upstream, id)
                            .await
                    }
                    refused => {
                        passed(word(refused));
                        let _ =
                            timeout_at(deadline, Alert::HandshakeFailure.tell(&mut stream)).await;
                        None
                    }
                }
            }
            First::Other => {
                passed(Code::NotTls.word());
                None
            }
        }
    }
}

/// Why there is no upstream.
fn word<T>(refused: Option<Result<T, crate::error::Error>>) -> &'static str {
    match refused {
        Some(Err(error)) => error.code().word(),
        _ => Code::Internal.word(),
    }
}
