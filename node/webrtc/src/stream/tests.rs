use super::*;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};

fn new() -> (Stream, Arc<Pipe>, Arc<Readiness>) {
    let readiness = Arc::default();
    let (stream, pipe) = stream(3, &readiness, 1000);
    (stream, pipe, readiness)
}

#[test]
fn small_writes_are_coalesced_into_one_frame() {
    let (mut stream, pipe, readiness) = new();
    for part in [&b"one "[..], b"two ", b"three"] {
        assert_eq!(stream.write(part).now_or_never().unwrap().unwrap(), part.len());
    }
    assert_eq!(readiness.take(), [3], "a stream is listed once");
    let frame = pipe.next_frame().unwrap();
    assert_eq!(&frame[..], b"\x0f\x12\x0done two three");
    assert_eq!(pipe.next_frame(), None);
}

#[test]
fn a_write_during_service_lists_the_stream_again() {
    let (mut stream, pipe, readiness) = new();
    stream.write_all(b"first").now_or_never().unwrap().unwrap();
    assert_eq!(readiness.take(), [3]);
    pipe.clear_ready();
    while pipe.next_frame().is_some() {}
    stream.write_all(b"second").now_or_never().unwrap().unwrap();
    pipe.local_half();
    assert_eq!(readiness.take(), [3]);
}

#[test]
fn a_full_send_buffer_blocks_the_writer_until_frames_are_taken() {
    let (mut stream, pipe, _) = new();
    let data = vec![1; SEND_BUFFER + 10];
    assert_eq!(stream.write(&data).now_or_never().unwrap().unwrap(), SEND_BUFFER);
    assert!(stream.write(&data).now_or_never().is_none());
    while pipe.next_frame().is_some() {}
    assert_eq!(stream.write(&data).now_or_never().unwrap().unwrap(), SEND_BUFFER);
}

#[test]
fn no_frame_exceeds_the_frame_size() {
    let (mut stream, pipe, _) = new();
    stream.write_all(&[1; 5500]).now_or_never().unwrap().unwrap();
    let lengths: Vec<usize> =
        std::iter::from_fn(|| pipe.next_frame()).map(|frame| frame.len()).collect();
    assert_eq!(lengths, [1005, 1005, 1005, 1005, 1005, 505]);
}

#[test]
fn a_full_read_buffer_blocks_the_task_until_the_application_reads() {
    let (mut stream, pipe, readiness) = new();
    pipe.push_data(&[1; RECEIVE_BUFFER]);
    assert!(!pipe.has_capacity());
    assert_eq!(readiness.take(), []);
    let mut buffer = vec![0; RECEIVE_BUFFER];
    stream.read_exact(&mut buffer).now_or_never().unwrap().unwrap();
    assert_eq!(readiness.take(), [3]);
    assert!(pipe.has_capacity());
}

#[test]
fn the_read_buffer_does_not_grow_over_many_fills() {
    let (mut stream, pipe, _) = new();
    let mut buffer = vec![0; RECEIVE_BUFFER / 2];
    for _ in 0..50 {
        while pipe.has_capacity() {
            pipe.push_data(&[1; 16_000]);
        }
        stream.read_exact(&mut buffer).now_or_never().unwrap().unwrap();
    }
    let held = pipe.state().received.capacity();
    assert!(held <= 3 * RECEIVE_BUFFER, "{held}");
}

#[test]
fn buffered_data_is_read_before_the_end_of_the_stream() {
    let (mut stream, pipe, _) = new();
    pipe.push_data(b"last");
    pipe.finish_read();
    pipe.reset(io::ErrorKind::ConnectionReset);
    let mut text = String::new();
    assert_eq!(stream.read_to_string(&mut text).now_or_never().unwrap().unwrap(), 4);
}

#[test]
fn reset_fails_both_directions() {
    let (mut stream, pipe, _) = new();
    pipe.push_data(b"lost");
    pipe.reset(io::ErrorKind::ConnectionReset);
    let mut buffer = [0; 4];
    let read = stream.read(&mut buffer).now_or_never().unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let write = stream.write(b"x").now_or_never().unwrap();
    assert_eq!(write.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_closed_stream_owes_a_fin_after_its_frames_are_taken() {
    let (mut stream, pipe, _) = new();
    stream.write_all(b"data").now_or_never().unwrap().unwrap();
    assert!(stream.close().now_or_never().is_none());
    assert!(pipe.local_half().draining);
    pipe.next_frame().unwrap();
    assert!(stream.close().now_or_never().unwrap().is_ok());
    assert_eq!(pipe.local_half(), LocalHalf { fin_due: true, dropped: false, draining: false });
    drop(stream);
    assert_eq!(pipe.local_half(), LocalHalf { fin_due: true, dropped: true, draining: false });
}

#[test]
fn dropping_a_stream_that_the_peer_finished_closes_it() {
    let (mut stream, pipe, _) = new();
    stream.write_all(b"answer").now_or_never().unwrap().unwrap();
    pipe.finish_read();
    drop(stream);
    assert_eq!(pipe.local_half(), LocalHalf { fin_due: false, dropped: true, draining: true });
    assert!(pipe.next_frame().is_some());
    assert_eq!(pipe.local_half(), LocalHalf { fin_due: true, dropped: true, draining: false });
}

#[test]
fn dropping_an_open_stream_discards_queued_frames() {
    let (mut stream, pipe, readiness) = new();
    stream.write_all(b"data").now_or_never().unwrap().unwrap();
    drop(stream);
    assert_eq!(readiness.take(), [3]);
    assert_eq!(pipe.local_half(), LocalHalf { fin_due: false, dropped: true, draining: false });
    assert_eq!(pipe.next_frame(), None);
}
