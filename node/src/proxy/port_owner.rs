//! Finds the process that owns a port of the host, for error messages. Reads Linux' `/proc`.

use std::fs;
use std::path::Path;

use vc_protocol::spec::PortProtocol;

/// States in `/proc/net/{tcp,udp}`: listening (TCP), bound (UDP).
const BOUND: [&str; 2] = ["0A", "07"];

/// Returns the process that owns a port, as `nginx (pid 12)`; `None`: it is not visible to this process. Blocks: reads
/// the file descriptors of every process.
pub(super) fn port_owner(protocol: PortProtocol, port: u16) -> Option<String> {
    let sockets = sockets(protocol, port);
    let holds = |process: &Path| {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
            let inode =
                target.to_str().and_then(|it| it.strip_prefix("socket:[")?.strip_suffix(']'));
            inode.is_some_and(|inode| sockets.iter().any(|socket| socket == inode))
        })
    };
    if sockets.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        if !holds(&process) {
            return None;
        }
        let name = fs::read_to_string(process.join("comm")).ok()?;
        Some(format!("{} (pid {pid})", name.trim()))
    })
}

/// Returns the inodes of the sockets that are bound to a port.
fn sockets(protocol: PortProtocol, port: u16) -> Vec<String> {
    let tables = match protocol {
        PortProtocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        PortProtocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, held) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(held, 16) == Ok(port) && BOUND.contains(fields.get(3)?);
        is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    let tables = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    tables.flat_map(|table| table.lines().filter_map(inode).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_owns_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let own = format!("(pid {})", std::process::id());
        let found = port_owner(PortProtocol::Tcp, port).expect("this process has it");
        assert!(found.ends_with(&own), "{found}");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("bound").port();
        let found = port_owner(PortProtocol::Udp, port).expect("this process has it");
        assert!(found.ends_with(&own), "{found}");
    }
}
