//! A proxy to the broker that injects faults.

use super::faults::Fault;
use anyhow::Context;
use std::{net::SocketAddr, pin::pin, time::Duration};
use tokio::{
    io::copy,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// The port of a URL that names none.
const USUAL_PORT: u16 = 5672;
/// The pause before the proxy binds a port again that was just closed.
const PORT_PAUSE: Duration = Duration::from_millis(50);

/// The proxy. Dropped, it ends all its connections.
pub struct BrokerProxy {
    url: String,
    _tasks: JoinSet<()>,
}

impl BrokerProxy {
    /// Opens a proxy to the broker at a URL, with the fault that is on.
    pub async fn open(url: &str, fault: watch::Receiver<Option<Fault>>) -> anyhow::Result<Self> {
        let (scheme, rest) = url.split_once("://").context("the broker's URL has no scheme")?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (user, broker) =
            authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let at = if user.is_empty() { "" } else { "@" };
        let proxied = format!("{scheme}://{user}{at}{address}{}", &rest[authority.len()..]);
        let named = broker.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let broker = if named { broker.to_owned() } else { format!("{broker}:{USUAL_PORT}") };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, address, broker, fault));
        Ok(Self { url: proxied, _tasks: tasks })
    }

    /// Gives the broker's URL through this proxy.
    pub fn url(&self) -> String {
        self.url.clone()
    }
}

/// Accepts connections, unless the fault is a vanished broker.
async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    broker: String,
    mut fault: watch::Receiver<Option<Fault>>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let now = *fault.borrow_and_update();
        match &listener {
            Some(_) if now == Some(Fault::Vanished) => listener = None,
            None if now != Some(Fault::Vanished) => listener = listen(address),
            _ => {}
        }
        let Some(open) = &listener else {
            if now != Some(Fault::Vanished) {
                sleep(PORT_PAUSE).await;
            } else if fault.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = fault.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
            Ok((client, _)) = open.accept() => {
                connections.spawn(forward(client, broker.clone(), fault.clone()));
            }
        }
    }
}

fn listen(address: SocketAddr) -> Option<TcpListener> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_reuseaddr(true).ok()?;
    socket.bind(address).ok()?;
    socket.listen(1024).ok()
}

/// Forwards one connection until one side or a fault ends it. A disturbed connection ends with its
/// fault, since bytes are missing.
async fn forward(mut client: TcpStream, broker: String, mut fault: watch::Receiver<Option<Fault>>) {
    if *fault.borrow_and_update() == Some(Fault::Refuses) {
        return;
    }
    let Ok(mut server) = TcpStream::connect(broker).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    let (mut there, mut back) = (
        pin!(copy(&mut from_client, &mut to_server)),
        pin!(copy(&mut from_server, &mut to_client)),
    );
    loop {
        let now = *fault.borrow_and_update();
        tokio::select! {
            _ = fault.changed() => {
                let next = *fault.borrow();
                if now.is_some() || matches!(next, Some(Fault::Refuses | Fault::Vanished)) {
                    return;
                }
            }
            _ = &mut there, if now != Some(Fault::Silent) => return,
            _ = &mut back, if now.is_none() => return,
        }
    }
}
