//! A TCP relay between the agent and what it calls, which does what a network does on its bad days. What it does can be switched
//! while connections are up. It runs on a thread of its own, so that it serves blocking tests as well as asynchronous ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

/// What becomes of what is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// All of it arrives.
    Passes,
    /// What the server says arrives so much later, piece by piece.
    Delays(Duration),
    /// Every connection is reset, those that are up and those that are made.
    Cuts,
    /// Connections stay and are taken, and nothing gets through, either way; nobody is told.
    Blackholes,
    /// What the server says arrives byte by byte, so far apart.
    Drips(Duration),
    /// What the server says arrives with a bit of every byte flipped.
    Garbles,
}

/// It ends, and every connection with it, when this is dropped.
pub struct Relay {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    connections: Arc<AtomicUsize>,
    over: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

impl Relay {
    /// Before this server, which need not be there yet.
    pub fn to(server: SocketAddr) -> Relay {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        let address = socket.local_addr().expect("bound");
        let (way, seen) = watch::channel(Way::Passes);
        let (over, ended) = oneshot::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let serving = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let socket = TcpListener::from_std(socket).expect("a socket");
                tokio::select! {
                    () = serve(socket, server, seen, &counted) => {}
                    _ = ended => {}
                }
            });
        });
        Relay {
            address,
            way,
            connections,
            over: Some(over),
            serving: Some(serving),
        }
    }

    /// From now on.
    pub fn turn(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// How many connections were ever made.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

async fn serve(
    socket: TcpListener,
    server: SocketAddr,
    seen: watch::Receiver<Way>,
    counted: &AtomicUsize,
) {
    loop {
        let Ok((client, _)) = socket.accept().await else {
            continue;
        };
        counted.fetch_add(1, SeqCst);
        tokio::spawn(relay(client, server, seen.clone()));
    }
}

/// One connection, to its end or until it is cut.
async fn relay(client: TcpStream, server: SocketAddr, seen: watch::Receiver<Way>) {
    let mut cut = seen.clone();
    let is_cut = |way: &Way| *way == Way::Cuts;
    // A reset rather than an end, at whatever time it is dropped; taken back where the ends come in order.
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    let carried = async {
        let mut opened = seen.clone();
        // A server that is behind a black hole does not hear of it.
        if opened
            .wait_for(|way| *way != Way::Blackholes)
            .await
            .is_err()
        {
            return;
        }
        let Ok(upstream) = TcpStream::connect(server).await else {
            return;
        };
        let _ = upstream.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = upstream.into_split();
        tokio::join!(
            pump(from_client, to_server, seen.clone(), false),
            pump(from_server, to_client, seen, true),
        );
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(is_cut) => {}
        () = carried => {}
    }
}

/// One direction. `back`: what the server says.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut seen: watch::Receiver<Way>,
    back: bool,
) -> Option<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut piece).await.ok()?;
        if read == 0 {
            return to.shutdown().await.ok();
        }
        let mut left = &mut piece[..read];
        while !left.is_empty() {
            // Held until it may go on: a way that is open again carries what was sent before.
            let way = *seen.wait_for(|way| *way != Way::Blackholes).await.ok()?;
            let now = match way {
                Way::Drips(_) if back => 1,
                _ => left.len(),
            };
            match way {
                Way::Delays(pause) | Way::Drips(pause) if back => sleep(pause).await,
                Way::Garbles if back => left.iter_mut().for_each(|byte| *byte ^= 0x40),
                _ => {}
            }
            let (go, stay) = left.split_at_mut(now);
            to.write_all(go).await.ok()?;
            left = stay;
        }
    }
}
