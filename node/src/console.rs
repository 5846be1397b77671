//! The console for browsers on this node: a convenience, without which a node runs as well.

use std::net::Ipv4Addr;

use tokio::net::TcpListener;

/// The console's port, counted from the node's: browsers dial the one between.
const OFFSET: u16 = 2;

/// Begins to serve the console of a node that has this port; says where, or why not.
pub(crate) async fn serve(node_port: u16) {
    let port = node_port.saturating_add(OFFSET);
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(
                %error,
                "the console cannot have port {port} of 127.0.0.1: free it, or say --no-console"
            );
            return;
        }
    };
    tracing::info!("the console is at http://127.0.0.1:{port}/");
    tokio::spawn(async move {
        let error = vc_console::serve(listener, None).await;
        tracing::warn!(%error, "the console is not served any more");
    });
}
