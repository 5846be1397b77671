//! What no browser does.

use super::Browser;

impl Browser {
    /// Sends a packet of any bytes inside the DTLS session.
    pub async fn inject(&mut self, packet: &[u8]) {
        self.dtls.send_application_data(packet).unwrap();
        self.read_records().await;
    }

    /// From now on nobody here knows what was sent: chunks are injected, and answers mean nothing.
    pub fn leave_sctp(&mut self) {
        self.association = None;
    }

    /// Sends chunks that SCTP would not, and takes in what comes meanwhile.
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

    /// Notes what injected chunks need to know of those that were sent.
    pub(super) fn note_numbers(&mut self, mut chunks: &[u8]) {
        while let [kind, _, high, low, rest @ ..] = chunks {
            match kind {
                0 => self.tsn = u32::from_be_bytes(rest[..4].try_into().unwrap()).wrapping_add(1),
                1 => self.tsn = u32::from_be_bytes(rest[12..16].try_into().unwrap()),
                _ => {}
            }
            let length = usize::from(u16::from_be_bytes([*high, *low])).next_multiple_of(4);
            chunks = &chunks[length.min(chunks.len())..];
        }
    }
}

/// The checksum of SCTP's packets.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}
