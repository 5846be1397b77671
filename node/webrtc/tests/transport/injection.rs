//! Packets and chunks that no browser sends.

use crate::browser::Browser;

impl Browser {
    /// Sends arbitrary bytes as an SCTP packet inside the DTLS session.
    pub async fn inject(&mut self, packet: &[u8]) {
        self.dtls.send_application_data(packet).unwrap();
        self.read_records().await;
    }

    /// Drops the SCTP state: from now on chunks are injected and answers ignored.
    pub fn drop_sctp(&mut self) {
        self.association = None;
    }

    /// Sends raw chunks in a packet with a valid header and checksum, and receives what has arrived.
    pub async fn inject_chunks(&mut self, chunks: &[u8]) {
        let mut packet = [&self.header[..], &[0; 4], chunks].concat();
        let checksum = crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.inject(&packet).await;
        let mut buffer = [0; 2048];
        while let Ok(length) = self.socket.try_recv(&mut buffer) {
            if matches!(buffer[0], 20..=63) && self.dtls.handle_packet(&buffer[..length]).is_err() {
                self.closed = true;
            }
            self.read_records().await;
        }
        tokio::task::yield_now().await;
    }
}

/// The SCTP checksum (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}
