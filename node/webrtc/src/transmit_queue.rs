//! The outgoing datagrams of a connection, batched for segmentation offload.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Maximum bytes of one batch: the kernel's limit for a UDP datagram before segmentation.
const MAX_BATCH_BYTES: usize = 65_000;

/// Datagrams waiting to be sent, stored back to back in one buffer.
#[derive(Debug, Default)]
pub(crate) struct TransmitQueue {
    bytes: BytesMut,
    lengths: VecDeque<usize>,
}

/// The first datagrams of a queue that fit into one system call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch<'a> {
    pub bytes: &'a [u8],
    /// Number of datagrams.
    pub count: usize,
    /// Length of each datagram in bytes; the last may be shorter.
    pub segment: usize,
}

impl TransmitQueue {
    pub(crate) fn push(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.lengths.push_back(datagram.len());
    }

    /// Returns the number of waiting datagrams.
    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Returns the first at most `max` datagrams of one length, of which the last may be shorter.
    pub(crate) fn batch(&self, max: usize) -> Option<Batch<'_>> {
        let segment = *self.lengths.front()?;
        let (mut count, mut bytes) = (0, 0);
        for &length in self.lengths.iter().take(max.max(1)) {
            if length > segment || bytes + length > MAX_BATCH_BYTES {
                break;
            }
            (count, bytes) = (count + 1, bytes + length);
            if length < segment {
                break;
            }
        }
        Some(Batch { bytes: &self.bytes[..bytes], count, segment })
    }

    /// Removes the first `count` datagrams.
    pub(crate) fn remove(&mut self, count: usize) {
        let bytes: usize = self.lengths.drain(..count).sum();
        if self.lengths.is_empty() {
            self.bytes.clear();
        } else {
            bytes::Buf::advance(&mut self.bytes, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_one_length_form_a_batch_with_a_shorter_last() {
        let mut queue = TransmitQueue::default();
        for length in [100, 100, 100, 40, 100, 120] {
            queue.push(&vec![length as u8; length]);
        }
        let mut sent = Vec::new();
        while let Some(Batch { bytes, count, segment }) = queue.batch(64) {
            sent.push((bytes.len(), count, segment));
            queue.remove(count);
        }
        assert_eq!(sent, [(340, 4, 100), (100, 1, 100), (120, 1, 120)]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_batch_does_not_exceed_the_kernels_maximum() {
        let mut queue = TransmitQueue::default();
        for _ in 0..100 {
            queue.push(&[0; 1200]);
        }
        assert_eq!(queue.batch(64).map(|batch| batch.count), Some(54));
        assert_eq!(queue.batch(1).map(|batch| batch.count), Some(1));
    }
}
