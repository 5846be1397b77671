//! Serves the web console, the metrics of the node and whether it is ready, on loopback. A node runs without it as well.

use std::net::Ipv4Addr;

use tokio::net::TcpListener;
use vc_console::{CheckReadiness, Extras, WriteMetrics};

/// Offset of the console's port from the node's port; the port between is WebRTC-direct's.
const PORT_OFFSET: u16 = 2;

/// Starts serving the console, and logs its address, or why it is not served.
pub(crate) async fn serve(node_port: u16, metrics: WriteMetrics, readiness: CheckReadiness) {
    let port = node_port.saturating_add(PORT_OFFSET);
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(
                %error,
                port,
                "console and metrics not served: cannot listen on 127.0.0.1; free the port, or use --no-console"
            );
            return;
        }
    };
    tracing::info!(url = %format_args!("http://127.0.0.1:{port}/"), "console started");
    let extras = Extras { metrics: Some(metrics), readiness: Some(readiness), ..Extras::default() };
    tokio::spawn(async move {
        let error = vc_console::serve(listener, extras).await;
        tracing::warn!(%error, "console stopped");
    });
}
