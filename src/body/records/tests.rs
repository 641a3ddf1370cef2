use super::*;

/// Records in `[]`, what is between them bare.
fn cut(framing: Framing, limit: usize, chunks: &[&[u8]]) -> String {
    let mut cutter = Cutter::new(framing, limit);
    let mut seen = String::new();
    let mut all = Vec::new();
    for turn in 0..=chunks.len() {
        match chunks.get(turn) {
            Some(chunk) => cutter.push(chunk),
            None => cutter.end(),
        }
        while let Some(piece) = cutter.cut() {
            let (of, open, close) = match piece {
                Piece::Record { all, .. } => (all, "[", "]"),
                Piece::Between(all) => (all, "", ""),
                Piece::TooLong => {
                    cutter.pass_over();
                    seen.push('!');
                    continue;
                }
            };
            let bytes = &cutter.bytes()[of];
            all.extend_from_slice(bytes);
            seen += &format!("{open}{}{close}", String::from_utf8_lossy(bytes));
        }
    }
    assert_eq!(all, chunks.concat(), "every byte once");
    seen
}

#[track_caller]
fn check(framing: Framing, stream: &str, expected: &str) {
    let whole = cut(framing, 100, &[stream.as_bytes()]);
    assert_eq!(whole, expected, "{stream:?}");
    // Separate pieces of what is between records are as good as one.
    let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
    let bytewise = cut(framing, 100, &bytes);
    let plain = |text: &str| text.replace("\r]\n", "\r\n]");
    assert_eq!(plain(&bytewise), plain(expected), "{stream:?} byte by byte");
    for at in 0..stream.len() {
        let (one, other) = stream.as_bytes().split_at(at);
        let halves = cut(framing, 100, &[one, other]);
        assert_eq!(plain(&halves), plain(expected), "{stream:?} at {at}");
    }
}

#[test]
fn lines() {
    let lines = Framing::Lines;
    check(lines, "", "");
    check(lines, "1\n", "[1\n]");
    check(lines, "{}\r\n\n \t\r\n[2]", "[{}\r\n]\n \t\r\n[[2]]");
    check(lines, "\n\n", "\n\n");
}

#[test]
fn sequences() {
    let sequence = Framing::Sequence;
    check(sequence, "\x1e1\n\x1e{}\n", "[\x1e1\n][\x1e{}\n]");
    check(
        sequence,
        "\x1e\x1e{\n \"a\\\"\":\n\"}\"\n}\n\n\x1e2",
        "[\x1e\x1e{\n \"a\\\"\":\n\"}\"\n}\n][\n\x1e2]",
    );
    check(sequence, "\x1e12\x1e3\n", "[\x1e12][\x1e3\n]");
    check(sequence, "\x1e\"\\\x1e3\n", "[\x1e\"\\][\x1e3\n]");
    check(sequence, "\x1e1\nx\n", "[\x1e1\n][x\n]");
}

#[test]
fn events() {
    let events = Framing::Events;
    check(
        events,
        "data: 1\n\ndata: 2\n\n",
        "[data: 1\n\n][data: 2\n\n]",
    );
    check(
        events,
        "data: 1\r\n\r\ndata: 2",
        "[data: 1\r\n\r\n][data: 2]",
    );
    check(events, "a\r\rb\r\n\nc\n\r\n", "[a\r\r][b\r\n\n][c\n\r\n]");
    check(events, "\n\r\n\r: x\n\n", "\n\r\n\r[: x\n\n]");
    check(events, "\u{feff}data: 1\n\n", "\u{feff}[data: 1\n\n]");
    check(events, "\u{feff}\n\n", "\u{feff}\n\n");
}

#[test]
fn a_record_is_there_when_its_last_byte_is() {
    for (framing, record) in [
        (Framing::Lines, "1\n"),
        (Framing::Sequence, "\x1e{}\n"),
        (Framing::Events, "data\r\r"),
        (Framing::Events, "\u{feff}data\n\n"),
    ] {
        let mut cutter = Cutter::new(framing, 100);
        for byte in &record.as_bytes()[..record.len() - 1] {
            cutter.push(&[*byte]);
            assert!(!matches!(cutter.cut(), Some(Piece::Record { .. })));
        }
        cutter.push(&record.as_bytes()[record.len() - 1..]);
        assert!(
            matches!(cutter.cut(), Some(Piece::Record { .. })),
            "{record:?}"
        );
        assert_eq!(cutter.cut(), None);
    }
}

#[test]
fn a_record_over_the_limit_is_told_as_soon_as_it_is() {
    let long = "x".repeat(50);
    for (framing, before, after) in [
        (Framing::Lines, "1\n", "\n2\n"),
        (Framing::Sequence, "\x1e1\n", "\n\x1e2\n"),
        (Framing::Events, "a\n\n", "\n\nb\n\n"),
    ] {
        let stream = format!("{before}{long}{after}");
        let cut_at = |chunk| {
            let chunks: Vec<&[u8]> = stream.as_bytes().chunks(chunk).collect();
            cut(framing, 20, &chunks)
        };
        let whole = cut_at(1_000);
        assert_eq!(whole.matches('!').count(), 1, "{whole}");
        assert!(whole.starts_with(&format!("[{before}]!{long}")), "{whole}");
        assert_eq!(whole.matches('[').count(), 2, "{whole}");
        assert_eq!(cut_at(1), whole);
    }
    // Twice the limit at most is held of it.
    let mut cutter = Cutter::new(Framing::Lines, 20);
    cutter.push(&[b'x'; 21]);
    assert_eq!(cutter.cut(), Some(Piece::TooLong));
}
