//! A network between a test and a server that can fail: silently, where it forwards nothing and
//! closes nothing, or by cutting all connections off.

use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// Forwards every connection to a server, as long as the network is there. Dropped, it closes all of them.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    /// Ends what it forwards.
    _tasks: JoinSet<()>,
}

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    There,
    /// It forwards nothing and closes nothing.
    Silent,
    /// It closes everything.
    Cut,
}

impl Proxy {
    /// Starts one before the server of a URL.
    ///
    /// # Panics
    /// When the URL has no host and port, or there is no free port.
    pub async fn before(url: &str) -> Self {
        let (_, server, _) = parts(url);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let (sender, network) = watch::channel(Network::There);
        let (server, mut tasks) = (server.to_owned(), JoinSet::new());
        tasks.spawn(async move {
            let mut forwarded = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                forwarded.spawn(forward(client, server.clone(), network.clone()));
            }
        });
        Self { address, network: sender, _tasks: tasks }
    }

    /// Gives the URL under which the server is reached through it.
    ///
    /// # Panics
    /// When the URL has no host and port.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let (before, _, behind) = parts(url);
        format!("{before}{}{behind}", self.address)
    }

    /// The network fails silently: both sides keep their connections and receive nothing more. New
    /// connections are accepted, and receive nothing either.
    pub fn vanish(&self) {
        self.network.send_replace(Network::Silent);
    }

    /// The network closes all connections, and new ones at once.
    pub fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }

    /// The network works again; bytes that were sent meanwhile arrive.
    pub fn come_back(&self) {
        self.network.send_replace(Network::There);
    }
}

/// Cuts a URL into what stands before the server's address, the address, and what follows.
fn parts(url: &str) -> (&str, &str, &str) {
    let host_at = url.find("://").map_or(0, |at| at + 3);
    let path_at = url[host_at..].find(['/', '?']).map_or(url.len(), |at| host_at + at);
    let host_at = url[host_at..path_at].rfind('@').map_or(host_at, |at| host_at + at + 1);
    (&url[..host_at], &url[host_at..path_at], &url[path_at..])
}

async fn forward(client: TcpStream, server: String, network: watch::Receiver<Network>) {
    if !is_there(&mut network.clone()).await {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let mut cut = network.clone();
    // Where one side ends, or the network is cut, both are closed.
    tokio::select! {
        () = copy(from_client, to_server, network.clone()) => {}
        () = copy(from_server, to_client, network) => {}
        _ = cut.wait_for(|network| *network == Network::Cut) => {}
    }
}

/// Waits while the network is silent, and tells whether it is there then.
async fn is_there(network: &mut watch::Receiver<Network>) -> bool {
    let spoken = network.wait_for(|network| *network != Network::Silent).await;
    spoken.is_ok_and(|network| *network == Network::There)
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        if !is_there(&mut network).await || read == 0 || to.write_all(&bytes[..read]).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{holds_within, wait_until};
    use std::time::Duration;

    #[test]
    fn a_url_keeps_all_but_its_address() {
        assert_eq!(parts("postgres://u:p@h:1/a?b=c"), ("postgres://u:p@", "h:1", "/a?b=c"));
        assert_eq!(parts("mysql://127.0.0.1:3306"), ("mysql://", "127.0.0.1:3306", ""));
    }

    #[tokio::test]
    async fn what_is_sent_while_the_network_is_gone_arrives_when_it_is_back_and_nothing_is_closed()
    {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::before(&format!("test://{}", server.local_addr().unwrap())).await;
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut bytes = [0; 1];
        client.write_all(b"a").await.unwrap();
        served.read_exact(&mut bytes).await.unwrap();
        proxy.vanish();
        client.write_all(b"b").await.unwrap();
        let mut heard = async || served.read_exact(&mut bytes).await.is_ok();
        assert!(
            !holds_within(Duration::from_millis(100), &mut heard).await,
            "nothing arrives, and nothing is closed"
        );
        proxy.come_back();
        wait_until(Duration::from_secs(10), "it arrives", heard).await;
        assert_eq!(bytes, *b"b");
    }

    #[tokio::test]
    async fn a_network_that_is_cut_closes_what_is_open_and_what_comes_until_it_is_back() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::before(&format!("test://{}", server.local_addr().unwrap())).await;
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut bytes = [0; 1];
        client.write_all(b"a").await.unwrap();
        served.read_exact(&mut bytes).await.unwrap();
        proxy.cut();
        assert_eq!(client.read(&mut bytes).await.unwrap_or(0), 0, "closed");
        assert_eq!(served.read(&mut bytes).await.unwrap_or(0), 0, "closed on this side too");
        let mut other = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(other.read(&mut bytes).await.unwrap_or(0), 0, "closed at once");
        proxy.come_back();
        let mut back = TcpStream::connect(proxy.address).await.unwrap();
        back.write_all(b"b").await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        served.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, *b"b");
    }
}
