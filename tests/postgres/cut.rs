//! A network that fails when the story says so: before a database, an API or a receiver.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::{beside, free_port};

/// Bytes that may be on the way in one direction.
const BUFFER: usize = 64 << 10;

/// A TCP connection's detour over an address of its own. It is whole at first.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// End connections and refuse new ones.
    Cut,
    /// Let this through.
    Pass(Flow),
}

/// What a wire lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    All,
    /// What is asked arrives; no answer comes back.
    Questions,
    Nothing,
}

impl Wire {
    /// A way to whoever listens there, now or later.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listener = bind(address).unwrap().listen(BACKLOG).unwrap();
        let (orders, received) = mpsc::channel(1);
        beside(serve(address, listener, target, received));
        Self { address, orders }
    }

    /// Where to connect instead.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection and refuses new ones.
    pub(crate) async fn cut(&self) {
        self.order(Order::Cut).await;
    }

    /// Everything stays open, and new connections are accepted, but nothing comes through.
    pub(crate) async fn freeze(&self) {
        self.order(Order::Pass(Flow::Nothing)).await;
    }

    /// What is asked arrives, what is answered does not: nobody learns whether the last commit was made.
    pub(crate) async fn swallow_answers(&self) {
        self.order(Order::Pass(Flow::Questions)).await;
    }

    /// All is well again. What was frozen comes through now.
    pub(crate) async fn mend(&self) {
        self.order(Order::Pass(Flow::All)).await;
    }

    /// When this returns, it is so.
    async fn order(&self, order: Order) {
        let (done, wait) = oneshot::channel();
        self.orders.send((order, done)).await.unwrap();
        wait.await.unwrap();
    }
}

const BACKLOG: u32 = 128;

/// A socket that has the address. Until it listens, the system refuses connections.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn serve(
    address: SocketAddr,
    listener: TcpListener,
    target: SocketAddr,
    mut orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
) {
    let flow = watch::Sender::new(Flow::All);
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    let mut closed = None;
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => {
                let Some((order, done)) = order else { return };
                match order {
                    Order::Cut => {
                        connections.shutdown().await;
                        if listener.take().is_some() {
                            closed = Some(bind(address).unwrap());
                        }
                    }
                    Order::Pass(what) => {
                        flow.send_replace(what);
                        if let Some(socket) = closed.take() {
                            listener = Some(socket.listen(BACKLOG).unwrap());
                        }
                    }
                }
                // Who gave the order may have been dropped meanwhile.
                done.send(()).ok();
            }
            near = accept(listener.as_ref()) => {
                connections.spawn(connect(near, target, flow.subscribe()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.unwrap().0,
        None => std::future::pending().await,
    }
}

async fn connect(near: TcpStream, target: SocketAddr, mut flow: watch::Receiver<Flow>) {
    let open = flow.wait_for(|flow| *flow != Flow::Nothing).await.is_ok();
    let Ok(far) = TcpStream::connect(target).await else { return };
    for side in [&near, &far] {
        // Reset when it is dropped, not ended as if all had been said.
        drop((side.set_zero_linger(), side.set_nodelay(true)));
    }
    let ((near_from, near_to), (far_from, far_to)) = (near.into_split(), far.into_split());
    let asked = pump(near_from, far_to, flow.clone(), |flow| *flow != Flow::Nothing);
    let answered = pump(far_from, near_to, flow, |flow| *flow == Flow::All);
    if open {
        tokio::join!(asked, answered);
    }
}

/// Carries bytes as long as there are any. A direction that was ended in order is ended in order on the other side.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    passes: impl Fn(&Flow) -> bool,
) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        // What was read when the wire froze waits here.
        if flow.wait_for(&passes).await.is_err() {
            return;
        }
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            // The other side may be gone already.
            drop(to.shutdown().await);
            return;
        }
    }
}
