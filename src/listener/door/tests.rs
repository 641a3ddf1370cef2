use super::gate::{Examined, Gate, Place, Violation};
use proptest::prelude::*;

#[path = "../../../tests/heads/mod.rs"]
mod heads;

/// Runs a stream through a gate in pieces that end at `cuts`; returns what was cleared and the violation.
fn run(stream: &[u8], mut cuts: impl FnMut() -> usize) -> (Vec<u8>, Option<Violation>, Place, u64) {
    let mut gate = Gate::default();
    let (mut cleared, mut kept, mut at) = (Vec::new(), Vec::new(), 0);
    while at < stream.len() {
        let next = (at + cuts().max(1)).min(stream.len());
        kept.extend_from_slice(&stream[at..next]);
        at = next;
        let Examined {
            cleared: count,
            violation,
        } = gate.examine(&kept);
        cleared.extend(kept.drain(..count));
        if violation.is_some() {
            return (cleared, violation, gate.place(), gate.heads());
        }
    }
    (cleared, None, gate.place(), gate.heads())
}

#[test]
fn every_bad_head_is_refused_whole_and_byte_by_byte() {
    for (name, bytes, code) in heads::refused() {
        for step in [bytes.len(), 1, 7] {
            let (cleared, violation, place, heads) = run(&bytes, || step);
            match violation {
                Some(Violation::Head(found)) => assert_eq!(found.word(), code, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
            assert_eq!(
                (cleared.len(), place, heads),
                (0, Place::Refused, 0),
                "{name}"
            );
        }
    }
}

#[test]
fn bad_chunks_break_the_body_where_they_stand() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (name, body) in heads::bad_chunks() {
        let stream = [&head[..], &body].concat();
        let whole = run(&stream, || stream.len());
        assert!(
            matches!(whole.1, Some(Violation::Body(_))),
            "{name}: {:?}",
            whole.1
        );
        assert!(whole.0.len() >= head.len() && whole.3 == 1, "{name}");
        let bytewise = run(&stream, || 1);
        assert_eq!(whole, bytewise, "{name}");
    }
}

#[test]
fn clean_requests_pass_untouched_and_hyper_can_read_their_targets() {
    let mut all = Vec::new();
    for bytes in heads::clean() {
        let (cleared, violation, place, heads) = run(&bytes, || bytes.len());
        assert_eq!(
            (violation, place, heads),
            (None, Place::Between, 1),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        assert_eq!(cleared, bytes);
        all.extend_from_slice(&bytes);
    }
    let (cleared, violation, _, count) = run(&all, || all.len());
    assert_eq!((violation, count), (None, heads::clean().len() as u64));
    assert_eq!(cleared, all);
}

#[test]
fn a_refusal_stands_behind_what_came_before_it() {
    let clean = heads::clean().concat();
    for (name, bytes, _) in heads::refused() {
        if name == "two empty lines first" {
            continue;
        }
        let stream = [&clean[..], &bytes].concat();
        let (cleared, violation, ..) = run(&stream, || 1000);
        assert!(violation.is_some(), "{name}");
        assert_eq!(cleared, clean, "{name}");
    }
}

#[test]
fn nothing_of_an_unfinished_head_is_cleared() {
    for bytes in heads::clean() {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a head")
            + 4;
        for cut in 0..end.min(300) {
            let (cleared, violation, place, _) = run(&bytes[..cut], || 3);
            assert_eq!((cleared.len(), violation), (0, None));
            assert_eq!(
                place,
                if cut == 0 {
                    Place::Between
                } else {
                    Place::Head
                }
            );
        }
    }
}

/// What a target may hold is a part of what the `http` crate takes, so that hyper never refuses one behind our back.
#[test]
fn every_target_byte_that_passes_is_one_that_hyper_takes() {
    for byte in 0..=255u8 {
        for target in [
            vec![b'/', byte, b'x'],
            vec![b'/', b'?', byte, b'x'],
            [b"http://x", &[byte][..], b"y/"].concat(),
        ] {
            let stream = [b"GET ", &target[..], b" HTTP/1.0\r\n\r\n"].concat();
            if run(&stream, || stream.len()).1.is_none() {
                assert!(http::Uri::try_from(&target[..]).is_ok(), "{byte:#x}");
            }
        }
    }
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Content-Length: 3\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"abc".to_vec()),
        Just(b"3\r\nabc\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"X: y\r\n".to_vec()),
        Just(b" ".to_vec()),
        Just(b":".to_vec()),
        prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_the_cuts(
        stream in pieces(),
        cuts in prop::collection::vec(1usize..40, 1..20),
    ) {
        let whole = run(&stream, || stream.len());
        let mut turn = cuts.iter().cycle();
        let cut = run(&stream, || *turn.next().unwrap_or(&1));
        prop_assert_eq!(&whole, &cut);
        let bytewise = run(&stream, || 1);
        prop_assert_eq!(&whole, &bytewise);
    }
}
