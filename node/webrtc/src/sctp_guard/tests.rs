use super::*;

fn packet(chunks: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    [0; PACKET_HEADER].into_iter().chain(chunks.into_iter().flatten()).collect()
}

/// Encodes a chunk with its length and padding.
fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 3, 0, 0];
    bytes.extend_from_slice(value);
    let length = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn data(tsn: u32, length: usize) -> Vec<u8> {
    chunk(DATA, &[&tsn.to_be_bytes()[..], &[0; 8], &vec![7; length]].concat())
}

fn sack(tsn: u32, held: u32) -> Vec<u8> {
    let window = RECEIVE_WINDOW - held;
    chunk(SACK, &[tsn.to_be_bytes(), window.to_be_bytes(), [0; 4]].concat())
}

#[test]
fn an_empty_data_chunk_ends_the_connection() {
    let mut guard = SctpGuard::new();
    assert_eq!(
        guard.on_receive(&packet([data(1, 3), data(2, 0)])),
        Err(ProtocolViolation::EmptyChunk)
    );
    assert_eq!(
        guard.on_receive(&packet([chunk(DATA, &[0; 3])])),
        Err(ProtocolViolation::EmptyChunk)
    );
    assert_eq!(guard.on_receive(&packet([vec![DATA, 3, 0, 3]])), Ok(false), "malformed");
}

/// Encodes a request to reset streams.
fn reset(request: u32, streams: &[u16]) -> Vec<u8> {
    let streams: Vec<u8> = streams.iter().flat_map(|id| id.to_be_bytes()).collect();
    let length = (RESET_HEADER + streams.len()) as u16;
    let head = [
        [13u16, length].map(u16::to_be_bytes).concat(),
        request.to_be_bytes().to_vec(),
        vec![0; 8],
    ];
    chunk(RECONFIG, &[head.concat(), streams].concat())
}

#[test]
fn chunks_that_hide_other_chunks_are_dropped() {
    let hidden = [data(1, 1), data(2, 1)].concat();
    let response = [vec![0, 16, 0, 12], vec![0; 8]].concat();
    let hiding = [
        chunk(11, &hidden),
        chunk(8, &hidden),
        chunk(SHUTDOWN_COMPLETE, &hidden),
        chunk(SHUTDOWN, &[&[0; 4][..], &hidden].concat()),
        chunk(SACK, &[&[0; 12][..], &hidden].concat()),
        chunk(HEARTBEAT, &[&[0, 1, 0, 8, 7, 7, 7, 7][..], &hidden].concat()),
        chunk(ERROR, &[&[0, 1, 0, 8, 7, 7, 7, 7][..], &hidden].concat()),
        chunk(RECONFIG, &[response.clone(), response.clone(), hidden.clone()].concat()),
        chunk(RECONFIG, &[vec![0, 16, 0, 20], vec![0; 16]].concat()),
        chunk(192, &[0; 8]),
        [chunk(INIT, &[0; 16]), data(1, 1)].concat(),
    ];
    let mut guard = SctpGuard::new();
    for chunk in hiding {
        assert_eq!(guard.on_receive(&packet([chunk.clone()])), Ok(false), "{chunk:?}");
    }
    let plain = [
        vec![chunk(INIT, &[0; 16])],
        vec![chunk(COOKIE_ECHO, &[7; 30]), data(1, 3)],
        vec![sack(1, 0), data(2, 3)],
        vec![chunk(HEARTBEAT, &[0, 1, 0, 11, 7, 7, 7, 7, 7, 7, 7])],
        vec![chunk(RECONFIG, &response)],
        vec![chunk(RECONFIG, &[reset(7, &[1, 2, 3])[4..].to_vec(), response].concat())],
        vec![chunk(SHUTDOWN, &[0; 4])],
        vec![chunk(ABORT, &[0, 12, 0, 9, 7, 7, 7, 7, 7])],
    ];
    for chunks in plain {
        assert_eq!(guard.on_receive(&packet(chunks.clone())), Ok(true), "{chunks:?}");
    }
    assert_eq!(guard.on_receive(&packet([chunk(INIT, &[0; 16])])), Ok(false), "already associated");
}

#[test]
fn streams_without_unread_data_can_be_reset_without_limit() {
    let mut guard = SctpGuard::new();
    for n in 0..10_000u32 {
        assert_eq!(guard.on_receive(&packet([data(n, 10)])), Ok(true));
        guard.on_send(&packet([sack(n, 0)]));
        let close = packet([reset(n, &[0])]);
        assert_eq!((guard.on_receive(&close), guard.on_receive(&close)), (Ok(true), Ok(true)));
        guard.on_resets_complete();
    }
}

#[test]
fn resetting_too_many_streams_with_unread_data_ends_the_connection() {
    assert_eq!(
        SctpGuard::new().on_receive(&packet([reset(1, &[])])),
        Err(ProtocolViolation::TooManyResets),
        "all"
    );
    let mut guard = SctpGuard::new();
    let ended = (0..10_000u32).find_map(|n| {
        guard.on_receive(&packet([data(n, 1)])).expect("a chunk");
        guard.on_send(&packet([sack(n, 1)]));
        guard.on_resets_complete();
        guard.on_receive(&packet([reset(n, &[n as u16 + 1])])).err().map(|violation| (n, violation))
    });
    assert_eq!(ended, Some((MAX_RESETS as u32, ProtocolViolation::TooManyResets)));
}

#[test]
fn too_much_data_for_reset_streams_ends_the_connection() {
    let mut guard = SctpGuard::new();
    assert_eq!(guard.on_receive(&packet([data(0, 1), reset(1, &[0])])), Ok(true));
    let ended = (1..10_000).find_map(|tsn| {
        guard.on_receive(&packet([data(tsn, 1)])).err().map(|violation| (tsn, violation))
    });
    assert_eq!(ended, Some((MAX_LATE_CHUNKS as u32 + 1, ProtocolViolation::TooManyResets)));
}

#[test]
fn a_stream_id_is_reused_during_an_upload_on_another_stream() {
    let mut guard = SctpGuard::new();
    for n in 0..10_000u32 {
        // Never all read: a part of a message waits for the rest.
        assert_eq!(guard.on_receive(&packet([data(n, 10), reset(n, &[0])])), Ok(true));
        guard.on_send(&packet([sack(n, 10)]));
        guard.on_reset_complete(0);
        guard.on_resets_complete();
    }
}

#[test]
fn a_long_upload_with_loss_and_retransmissions_is_accepted() {
    let mut guard = SctpGuard::new();
    let full = 950;
    for tsn in 0..10_000u32 {
        let tsn = tsn.wrapping_sub(5000);
        assert_eq!(guard.on_receive(&packet([data(tsn, 1100)])), Ok(true));
        if tsn % 10 == 0 {
            for again in [0, 7, 2000] {
                let again = packet([data(tsn.wrapping_sub(again), 1100)]);
                assert_eq!(guard.on_receive(&again), Ok(true));
            }
            guard.on_send(&packet([sack(tsn.wrapping_sub(20), full * 1100)]));
        }
        guard.on_read(usize::from(guard.unread > full as usize));
    }
}

#[test]
fn chunks_that_sctp_discarded_do_not_count_as_unread() {
    let mut guard = SctpGuard::new();
    for tsn in 0..50_000 {
        assert_eq!(guard.on_receive(&packet([data(tsn, 1)])), Ok(true));
        if tsn % 1000 == 0 {
            guard.on_send(&packet([sack(tsn, 0)]));
        }
    }
}

#[test]
fn too_many_unread_tiny_chunks_end_the_connection() {
    let mut guard = SctpGuard::new();
    let ended = (0..50_000).step_by(50).find_map(|first| {
        let taken = guard.on_receive(&packet((first..first + 50).map(|tsn| data(tsn, 1))));
        guard.on_send(&packet([sack(first + 49, first + 50)]));
        taken.err()
    });
    assert_eq!(ended, Some(ProtocolViolation::TooManyUnread));
}

#[test]
fn chunks_too_far_ahead_of_a_missing_one_are_dropped() {
    let mut guard = SctpGuard::new();
    guard.on_send(&packet([sack(u32::MAX - 10, 0)]));
    let far = (u32::MAX - 10).wrapping_add(MAX_REORDER);
    assert_eq!(guard.on_receive(&packet([data(far.wrapping_add(1), 900)])), Ok(false));
    assert_eq!(guard.on_receive(&packet([data(far, 900)])), Ok(true));
    assert_eq!(guard.on_receive(&packet([data(u32::MAX - 9, 900)])), Ok(true));
}

#[test]
fn duplicate_tsns_in_a_sack_cost_no_work() {
    let twice: Vec<u8> = (0..20u16)
        .flat_map(|number| [[0, 1], number.to_be_bytes().map(|it| it ^ 0xff)].concat())
        .collect();
    let packet = packet([chunk(SACK, &[&[0; 8][..], &[0, 0, 0, 20], &twice].concat())]);
    let mut guard = SctpGuard::new();
    assert!((0..10_000).all(|_| guard.on_receive(&packet) == Ok(true)));
}

#[test]
fn packets_that_exceed_the_work_budget_end_the_connection() {
    let acknowledgement = |gaps: u8| {
        let head = [&[0; 8][..], &[0, gaps, 0, 0]].concat();
        packet([chunk(SACK, &[head, [0, 1, 3, 232].repeat(gaps.into())].concat())])
    };
    let [many, few] = [200, 1].map(acknowledgement);
    let mut guard = SctpGuard::new();
    assert!((0..100_000).all(|_| guard.on_receive(&few).is_ok()));
    let ended = (0..1000).find_map(|_| guard.on_receive(&many).err());
    assert_eq!(ended, Some(ProtocolViolation::WorkExceeded));
}
