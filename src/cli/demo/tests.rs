use super::message::{Message, Reader};
use super::*;

/// The same messages, whatever pieces they come in.
#[track_caller]
fn check(stream: &str, bodiless: bool, expected: &[(&str, &str)], end: Option<&str>) {
    for size in [1, 2, 3, 7, stream.len().max(1)] {
        let mut reader = Reader::default();
        let mut found = Vec::new();
        for piece in stream.as_bytes().chunks(size) {
            found.extend(reader.push(piece, bodiless));
        }
        let found: Vec<(String, String)> = found
            .into_iter()
            .map(|message: Message| {
                assert!(!message.cut);
                let start = message.head.split("\r\n").next().unwrap().to_owned();
                (start, String::from_utf8(message.body).unwrap())
            })
            .collect();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(head, body)| ((*head).to_owned(), (*body).to_owned()))
            .collect();
        assert_eq!(found, expected, "in pieces of {size}");
        assert_eq!(
            reader
                .end()
                .map(|message| String::from_utf8(message.body).unwrap())
                .as_deref(),
            end
        );
    }
}

#[test]
fn messages_are_told_apart() {
    check(
        "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
        false,
        &[("POST /a HTTP/1.1", "abc"), ("GET /b HTTP/1.1", "")],
        None,
    );
    check(
        "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
        false,
        &[("POST /a HTTP/1.1", "abcde"), ("GET /b HTTP/1.1", "")],
        None,
    );
    check(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        false,
        &[
            ("HTTP/1.1 100 Continue", ""),
            ("HTTP/1.1 204 No Content", ""),
            ("HTTP/1.1 200 OK", "ok"),
        ],
        None,
    );
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        true,
        &[("HTTP/1.1 200 OK", "")],
        None,
    );
    check(
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        false,
        &[],
        Some("to the end"),
    );
    check(
        "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nshort",
        false,
        &[],
        Some("short"),
    );
    check(
        "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\nshort",
        false,
        &[],
        None,
    );
    check(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        false,
        &[],
        None,
    );
}

#[test]
fn a_head_without_end_is_given_up() {
    let mut reader = Reader::default();
    for _ in 0..100 {
        assert!(reader.push(&[b'x'; 4096], false).is_empty());
    }
    assert!(reader.end().is_none());
}

#[test]
fn of_a_long_body_the_beginning_is_kept() {
    let mut reader = Reader::default();
    reader.push(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", false);
    let found = reader.push(&vec![b'x'; 1_000_000], false);
    assert!(found[0].cut && found[0].body.len() < 1_000_000);
}

#[test]
fn the_policy_of_the_demonstration_is_one() {
    let policy = Policy::load(POLICY, "demo.yaml", None).unwrap();
    assert_eq!(policy.classes.len(), 3);
}
