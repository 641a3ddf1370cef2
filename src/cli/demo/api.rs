//! A small order API: it keeps what comes, as it came, and gives it back. It knows nothing of fieldveil, and has no key.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The header of an answer with the number under which the exchange is remembered.
pub const EXCHANGE: &str = "x-demo-exchange";
/// Orders that are kept; the oldest go first.
const ORDERS_MAX: usize = 1_000;
/// Bytes of all kept orders together.
const BYTES_MAX: usize = 64 << 20;
/// Exchanges that are remembered for the picture.
const SEEN_MAX: usize = 64;
/// Bytes of one order, sealed.
const ORDER_BYTES_MAX: usize = 16 << 20;
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// The API and what it has.
#[derive(Default)]
pub struct Api {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With their numbers, from 1.
    orders: VecDeque<(u64, Bytes)>,
    bytes: usize,
    numbered: u64,
    exchanges: u64,
    seen: VecDeque<(u64, Seen)>,
}

/// One exchange as the API saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The request's body.
    pub request: Bytes,
    /// What was answered.
    pub status: u16,
    /// The answer's body.
    pub answer: Bytes,
}

impl Api {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An exchange that is still remembered.
    pub fn seen(&self, number: u64) -> Option<Seen> {
        self.state()
            .seen
            .iter()
            .find(|(known, _)| *known == number)
            .map(|(_, seen)| seen.clone())
    }

    /// Serves until `stop` turns true.
    pub async fn serve(self: Arc<Self>, socket: TcpListener, mut stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = tasks.join_next() => continue,
                accepted = socket.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                sleep(PAUSE).await;
                continue;
            };
            let api = Arc::clone(&self);
            tasks.spawn(async move {
                let service = service_fn(|request| {
                    let api = Arc::clone(&api);
                    async move { Ok::<_, Infallible>(api.answer(request).await) }
                });
                let serving = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                // How a connection ends is of no interest.
                let _ = serving.await;
            });
        }
        // What is in flight is the agent's to wait for; by the time it has ended, its connections are closed.
        while tasks.join_next().await.is_some() {}
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, ORDER_BYTES_MAX).collect().await else {
            return document(
                StatusCode::BAD_REQUEST,
                "{\"error\":\"the order did not arrive\"}\n".into(),
            );
        };
        let body = body.to_bytes();
        let (mut answer, text) = self.route(&head.method, head.uri.path(), &body);
        let answered = if head.method == Method::HEAD {
            Bytes::new()
        } else {
            text
        };
        let seen = Seen {
            request: body,
            status: answer.status().as_u16(),
            answer: answered,
        };
        let number = self.state().remember(seen);
        answer
            .headers_mut()
            .insert(HeaderName::from_static(EXCHANGE), HeaderValue::from(number));
        answer
    }

    /// The answer, and its body once more.
    fn route(&self, method: &Method, path: &str, body: &Bytes) -> (Response<Full<Bytes>>, Bytes) {
        let path: Vec<&str> = path.split('/').skip(1).collect();
        let (status, text, header) = match (method, &path[..]) {
            (&Method::POST, ["orders"]) => {
                let number = self.state().keep(body.clone());
                let place = HeaderValue::from_str(&format!("/orders/{number}")).ok();
                (
                    StatusCode::CREATED,
                    body.clone(),
                    place.map(|place| (LOCATION, place)),
                )
            }
            (&Method::GET | &Method::HEAD, ["orders"]) => {
                (StatusCode::OK, self.state().list(), None)
            }
            (&Method::GET | &Method::HEAD, ["orders", number]) => {
                match self.state().order(number) {
                    Some(order) => (StatusCode::OK, order, None),
                    None => (
                        StatusCode::NOT_FOUND,
                        "{\"error\":\"there is no such order\"}\n".into(),
                        None,
                    ),
                }
            }
            (_, ["orders"] | ["orders", _]) => {
                let methods = if path.len() == 1 {
                    "GET, HEAD, POST"
                } else {
                    "GET, HEAD"
                };
                let allow = (ALLOW, HeaderValue::from_static(methods));
                (
                    StatusCode::METHOD_NOT_ALLOWED,
                    "{\"error\":\"not with this method\"}\n".into(),
                    Some(allow),
                )
            }
            _ => (
                StatusCode::NOT_FOUND,
                "{\"error\":\"there is nothing here; try /orders\"}\n".into(),
                None,
            ),
        };
        let mut answer = document(status, text.clone());
        answer.headers_mut().extend(header);
        (answer, text)
    }
}

impl State {
    fn keep(&mut self, order: Bytes) -> u64 {
        self.numbered += 1;
        self.bytes += order.len();
        self.orders.push_back((self.numbered, order));
        while self.orders.len() > ORDERS_MAX || self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.orders.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
        self.numbered
    }

    fn order(&self, number: &str) -> Option<Bytes> {
        let number: u64 = number.parse().ok()?;
        self.orders
            .iter()
            .find(|(known, _)| *known == number)
            .map(|(_, order)| order.clone())
    }

    /// A JSON array of all orders, each as it came.
    fn list(&self) -> Bytes {
        let mut list = Vec::from(*b"[");
        for (at, (_, order)) in self.orders.iter().enumerate() {
            list.extend_from_slice(if at == 0 { b"" } else { b"," });
            list.extend_from_slice(order);
        }
        list.extend_from_slice(b"]\n");
        list.into()
    }

    fn remember(&mut self, seen: Seen) -> u64 {
        self.exchanges += 1;
        self.seen.push_back((self.exchanges, seen));
        if self.seen.len() > SEEN_MAX {
            self.seen.pop_front();
        }
        self.exchanges
    }
}

fn document(status: StatusCode, text: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(text));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
