//! An HTTP server on loopback that can close and reopen its address.

use axum::Router;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
    task::JoinHandle,
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// The server. Dropped, it stops.
pub struct Server {
    address: SocketAddr,
    app: Router,
    running: Option<Running>,
    /// While the server is closed: bound and not listening, so that connections are refused and no
    /// other process takes the port.
    reserved: Option<TcpSocket>,
}

struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Serves an application on a free port.
    pub fn start(app: Router) -> io::Result<Self> {
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let mut server =
            Self { address: socket.local_addr()?, app, running: None, reserved: Some(socket) };
        server.open()?;
        Ok(server)
    }

    /// Gives the address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens the address again.
    pub fn open(&mut self) -> io::Result<()> {
        let Some(socket) = self.reserved.take() else { return Ok(()) };
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(serve(socket.listen(BACKLOG)?, self.app.clone(), stopped));
        self.running = Some(Running { stop, ended });
        Ok(())
    }

    /// Closes: answers running requests, closes its connections, and refuses new ones.
    pub async fn close(&mut self) -> io::Result<()> {
        let Some(Running { stop, ended }) = self.running.take() else { return Ok(()) };
        let _ = stop.send(());
        ended.await.map_err(io::Error::other)??;
        self.reserved = Some(bind(self.address)?);
        Ok(())
    }
}

async fn serve(
    listener: TcpListener,
    app: Router,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let stopped = async move {
        // An error means that the server was dropped.
        let _ = stopped.await;
    };
    // The page of the operators looks where a request comes from.
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).with_graceful_shutdown(stopped).await
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
