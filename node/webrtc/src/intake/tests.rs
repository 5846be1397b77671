use super::*;

fn packet(chunks: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    [0; PACKET_HEADER].into_iter().chain(chunks.into_iter().flatten()).collect()
}

/// A chunk with its length and padding.
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
fn a_chunk_without_data_is_refused_wherever_it_stands() {
    let mut intake = Intake::new();
    assert_eq!(intake.arrives(&packet([data(1, 3), data(2, 0)])), Err(Abuse::Empty));
    assert_eq!(intake.arrives(&packet([chunk(DATA, &[0; 3])])), Err(Abuse::Empty));
    assert_eq!(intake.arrives(&packet([vec![DATA, 3, 0, 3]])), Ok(false), "malformed");
}

/// A request to reset streams.
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
fn chunks_that_hide_others_are_not_given_to_sctp() {
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
    let mut intake = Intake::new();
    for chunk in hiding {
        assert_eq!(intake.arrives(&packet([chunk.clone()])), Ok(false), "{chunk:?}");
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
        assert_eq!(intake.arrives(&packet(chunks.clone())), Ok(true), "{chunks:?}");
    }
    assert_eq!(intake.arrives(&packet([chunk(INIT, &[0; 16])])), Ok(false), "it has begun");
}

#[test]
fn streams_may_be_closed_for_ever_by_who_leaves_nothing_behind() {
    let mut intake = Intake::new();
    for n in 0..10_000u32 {
        assert_eq!(intake.arrives(&packet([data(n, 10)])), Ok(true));
        intake.leaves(&packet([sack(n, 0)]));
        let close = packet([reset(n, &[0])]);
        assert_eq!((intake.arrives(&close), intake.arrives(&close)), (Ok(true), Ok(true)));
        intake.settled();
    }
}

#[test]
fn streams_that_are_closed_with_something_unread_end_the_connection() {
    assert_eq!(Intake::new().arrives(&packet([reset(1, &[])])), Err(Abuse::Resets), "all");
    let mut intake = Intake::new();
    let ended = (0..10_000u32).find_map(|n| {
        intake.arrives(&packet([data(n, 1)])).expect("a chunk");
        intake.leaves(&packet([sack(n, 1)]));
        intake.settled();
        intake.arrives(&packet([reset(n, &[n as u16 + 1])])).err().map(|abuse| (n, abuse))
    });
    assert_eq!(ended, Some((RESETS as u32, Abuse::Resets)));
}

#[test]
fn data_for_streams_that_are_being_closed_ends_the_connection() {
    let mut intake = Intake::new();
    assert_eq!(intake.arrives(&packet([data(0, 1), reset(1, &[0])])), Ok(true));
    let ended = (1..10_000)
        .find_map(|tsn| intake.arrives(&packet([data(tsn, 1)])).err().map(|abuse| (tsn, abuse)));
    assert_eq!(ended, Some((LATE as u32 + 1, Abuse::Resets)));
}

#[test]
fn an_upload_through_a_full_window_is_taken_for_ever_though_packets_are_lost_and_come_twice() {
    let mut intake = Intake::new();
    let full = 950;
    for tsn in 0..10_000u32 {
        let tsn = tsn.wrapping_sub(5000);
        assert_eq!(intake.arrives(&packet([data(tsn, 1100)])), Ok(true));
        if tsn % 10 == 0 {
            for again in [0, 7, 2000] {
                let again = packet([data(tsn.wrapping_sub(again), 1100)]);
                assert_eq!(intake.arrives(&again), Ok(true));
            }
            intake.leaves(&packet([sack(tsn.wrapping_sub(20), full * 1100)]));
        }
        intake.read(usize::from(intake.unread > full as usize));
    }
}

#[test]
fn what_was_thrown_away_unread_is_not_held_against_the_peer() {
    let mut intake = Intake::new();
    for tsn in 0..50_000 {
        assert_eq!(intake.arrives(&packet([data(tsn, 1)])), Ok(true));
        if tsn % 1000 == 0 {
            intake.leaves(&packet([sack(tsn, 0)]));
        }
    }
}

#[test]
fn tiny_messages_that_cannot_be_read_end_the_connection() {
    let mut intake = Intake::new();
    let ended = (0..50_000).step_by(50).find_map(|first| {
        let taken = intake.arrives(&packet((first..first + 50).map(|tsn| data(tsn, 1))));
        intake.leaves(&packet([sack(first + 49, first + 50)]));
        taken.err()
    });
    assert_eq!(ended, Some(Abuse::Unread));
}

#[test]
fn behind_a_missing_chunk_only_so_much_is_taken_and_the_missing_one_always() {
    let mut intake = Intake::new();
    intake.leaves(&packet([sack(u32::MAX - 10, 0)]));
    let far = (u32::MAX - 10).wrapping_add(AHEAD);
    assert_eq!(intake.arrives(&packet([data(far.wrapping_add(1), 900)])), Ok(false));
    assert_eq!(intake.arrives(&packet([data(far, 900)])), Ok(true));
    assert_eq!(intake.arrives(&packet([data(u32::MAX - 9, 900)])), Ok(true));
}

#[test]
fn what_a_peer_has_got_twice_it_may_say_for_ever() {
    let twice: Vec<u8> = (0..20u16)
        .flat_map(|number| [[0, 1], number.to_be_bytes().map(|it| it ^ 0xff)].concat())
        .collect();
    let packet = packet([chunk(SACK, &[&[0; 8][..], &[0, 0, 0, 20], &twice].concat())]);
    let mut intake = Intake::new();
    assert!((0..10_000).all(|_| intake.arrives(&packet) == Ok(true)));
}

#[test]
fn packets_that_cost_more_than_they_bring_end_the_connection() {
    let acknowledgement = |gaps: u8| {
        let head = [&[0; 8][..], &[0, gaps, 0, 0]].concat();
        packet([chunk(SACK, &[head, [0, 1, 3, 232].repeat(gaps.into())].concat())])
    };
    let [many, few] = [200, 1].map(acknowledgement);
    let mut intake = Intake::new();
    assert!((0..100_000).all(|_| intake.arrives(&few).is_ok()));
    let ended = (0..1000).find_map(|_| intake.arrives(&many).err());
    assert_eq!(ended, Some(Abuse::Costly));
}
