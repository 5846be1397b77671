use super::*;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};

fn new() -> (Stream, Arc<Pipe>, Arc<Attention>) {
    let attention = Arc::default();
    let (stream, pipe) = stream(3, &attention, 1000);
    (stream, pipe, attention)
}

fn listed(attention: &Attention) -> Vec<u16> {
    let mut list = Vec::new();
    attention.take(&mut list);
    list
}

#[test]
fn small_writes_become_one_message() {
    let (mut stream, pipe, attention) = new();
    for part in [&b"one "[..], b"two ", b"three"] {
        assert_eq!(stream.write(part).now_or_never().unwrap().unwrap(), part.len());
    }
    assert_eq!(listed(&attention), [3], "a stream is listed once");
    let frame = pipe.next_frame().unwrap();
    assert_eq!(&frame[..], b"\x0f\x12\x0done two three");
    assert_eq!(pipe.next_frame(), None);
}

#[test]
fn what_is_written_while_the_task_looks_is_seen_the_next_time() {
    let (mut stream, pipe, attention) = new();
    stream.write_all(b"first").now_or_never().unwrap().unwrap();
    assert_eq!(listed(&attention), [3]);
    pipe.unlist();
    while pipe.next_frame().is_some() {}
    stream.write_all(b"second").now_or_never().unwrap().unwrap();
    pipe.wishes();
    assert_eq!(listed(&attention), [3]);
}

#[test]
fn a_writer_waits_when_the_peer_takes_nothing_and_goes_on_when_it_does() {
    let (mut stream, pipe, _) = new();
    let data = vec![1; SEND_BUFFER + 10];
    assert_eq!(stream.write(&data).now_or_never().unwrap().unwrap(), SEND_BUFFER);
    assert!(stream.write(&data).now_or_never().is_none());
    while pipe.next_frame().is_some() {}
    assert_eq!(stream.write(&data).now_or_never().unwrap().unwrap(), SEND_BUFFER);
}

#[test]
fn no_message_is_longer_than_asked_for() {
    let (mut stream, pipe, _) = new();
    stream.write_all(&[1; 5500]).now_or_never().unwrap().unwrap();
    let lengths: Vec<usize> =
        std::iter::from_fn(|| pipe.next_frame()).map(|frame| frame.len()).collect();
    assert_eq!(lengths, [1005, 1005, 1005, 1005, 1005, 505]);
}

#[test]
fn a_reader_that_does_not_read_stops_the_task_until_it_does() {
    let (mut stream, pipe, attention) = new();
    pipe.receive(&[1; RECEIVE_BUFFER]);
    assert!(!pipe.has_room());
    assert_eq!(listed(&attention), []);
    let mut buffer = vec![0; RECEIVE_BUFFER];
    stream.read_exact(&mut buffer).now_or_never().unwrap().unwrap();
    assert_eq!(listed(&attention), [3]);
    assert!(pipe.has_room());
}

#[test]
fn a_read_stream_holds_no_more_than_its_bound_however_much_came() {
    let (mut stream, pipe, _) = new();
    let mut buffer = vec![0; RECEIVE_BUFFER / 2];
    for _ in 0..50 {
        while pipe.has_room() {
            pipe.receive(&[1; 16_000]);
        }
        stream.read_exact(&mut buffer).now_or_never().unwrap().unwrap();
    }
    let held = pipe.ends().received.capacity();
    assert!(held <= 3 * RECEIVE_BUFFER, "{held}");
}

#[test]
fn the_end_comes_after_the_data() {
    let (mut stream, pipe, _) = new();
    pipe.receive(b"last");
    pipe.finish_read();
    pipe.break_off(io::ErrorKind::ConnectionReset);
    let mut text = String::new();
    assert_eq!(stream.read_to_string(&mut text).now_or_never().unwrap().unwrap(), 4);
}

#[test]
fn both_directions_fail_when_the_stream_is_broken_off() {
    let (mut stream, pipe, _) = new();
    pipe.receive(b"lost");
    pipe.break_off(io::ErrorKind::ConnectionReset);
    let mut buffer = [0; 4];
    let read = stream.read(&mut buffer).now_or_never().unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let write = stream.write(b"x").now_or_never().unwrap();
    assert_eq!(write.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_closed_stream_is_finished_when_its_data_was_taken() {
    let (mut stream, pipe, _) = new();
    stream.write_all(b"data").now_or_never().unwrap().unwrap();
    assert!(stream.close().now_or_never().is_none());
    assert!(pipe.wishes().pending);
    pipe.next_frame().unwrap();
    assert!(stream.close().now_or_never().unwrap().is_ok());
    assert_eq!(pipe.wishes(), Wishes { finished: true, dropped: false, pending: false });
    drop(stream);
    assert_eq!(pipe.wishes(), Wishes { finished: true, dropped: true, pending: false });
}

#[test]
fn a_stream_that_the_peer_has_closed_is_closed_when_it_is_dropped() {
    let (mut stream, pipe, _) = new();
    stream.write_all(b"answer").now_or_never().unwrap().unwrap();
    pipe.finish_read();
    drop(stream);
    assert_eq!(pipe.wishes(), Wishes { finished: false, dropped: true, pending: true });
    assert!(pipe.next_frame().is_some());
    assert_eq!(pipe.wishes(), Wishes { finished: true, dropped: true, pending: false });
}

#[test]
fn a_stream_dropped_unclosed_forgets_what_was_not_sent() {
    let (mut stream, pipe, attention) = new();
    stream.write_all(b"data").now_or_never().unwrap().unwrap();
    drop(stream);
    assert_eq!(listed(&attention), [3]);
    assert_eq!(pipe.wishes(), Wishes { finished: false, dropped: true, pending: false });
    assert_eq!(pipe.next_frame(), None);
}
