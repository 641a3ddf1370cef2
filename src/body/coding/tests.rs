use super::*;
use http::header::HeaderName;
use proptest::prelude::*;

const ALL: [Coding; 5] = [
    Coding::Gzip,
    Coding::Zlib,
    Coding::Deflate,
    Coding::Brotli,
    Coding::Zstd,
];

fn encoded(codings: &Codings, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(codings);
    encoder.feed(body, &mut out).unwrap();
    encoder.finish(&mut out).unwrap();
    out
}

fn decoded(codings: &Codings, coded: &[u8]) -> Result<Vec<u8>, Undecodable> {
    let mut out = Vec::new();
    let mut decoder = Decoder::new(codings);
    decoder.feed(coded, &mut out)?;
    decoder.finish().map(|_| out)
}

/// All single codings and all pairs. What is sent as `deflate` shows itself.
fn stacks() -> Vec<Codings> {
    let pairs = ALL.into_iter().flat_map(|a| ALL.map(|b| vec![a, b]));
    let singles = ALL.map(|a| vec![a]);
    singles.into_iter().chain(pairs).map(Codings).collect()
}

/// Text that compresses as JSON does.
fn text(len: usize) -> Vec<u8> {
    let mut noise = 1_u32;
    let mut text = Vec::with_capacity(len + 32);
    while text.len() < len {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(format!("{{\"id\":{},\"name\":\"x\"}},", noise >> 8).as_bytes());
    }
    text.truncate(len);
    text
}

fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(&name, HeaderValue::from_str(line).unwrap());
    }
    headers
}

#[test]
fn what_is_put_on_comes_off() {
    for codings in stacks() {
        for len in [0, 1, 7, 300, WINDOW - 1, WINDOW, WINDOW + 1, 300_000] {
            let body = text(len);
            let coded = encoded(&codings, &body);
            assert!(decoded(&codings, &coded) == Ok(body), "{codings:?} {len}");
        }
    }
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        runs in proptest::collection::vec((any::<u8>(), 1_usize..400), 0..300),
        cuts in proptest::collection::vec(1_usize..2_000, 1..40),
        stack in 0_usize..30,
    ) {
        let runs = runs.iter().map(|(byte, times)| vec![*byte; *times]);
        let body: Vec<u8> = runs.collect::<Vec<_>>().concat();
        let codings = &stacks()[stack];
        let mut encoder = Encoder::new(codings);
        let mut coded = Vec::new();
        let mut rest = &body[..];
        for (count, cut) in cuts.iter().cycle().enumerate() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            encoder.feed(piece, &mut coded).unwrap();
            if count % 3 == 0 {
                encoder.flush(&mut coded).unwrap();
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        encoder.finish(&mut coded).unwrap();

        let mut decoder = Decoder::new(codings);
        let mut out = Vec::new();
        let mut rest = &coded[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            decoder.feed(piece, &mut out).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&decoder.finish().unwrap(), codings);
        prop_assert_eq!(out, body);
    }

    #[test]
    fn any_bytes_are_refused_or_decoded(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        stack in 0_usize..30,
    ) {
        let _ = decoded(&stacks()[stack], &bytes);
    }
}

#[test]
fn flushed_is_readable_at_once() {
    for codings in stacks() {
        let mut encoder = Encoder::new(&codings);
        let mut decoder = Decoder::new(&codings);
        for event in [&b"data: one\n\n"[..], b"data: two\n\n", &text(50_000)] {
            let mut coded = Vec::new();
            encoder.feed(event, &mut coded).unwrap();
            encoder.flush(&mut coded).unwrap();
            let mut out = Vec::new();
            decoder.feed(&coded, &mut out).unwrap();
            assert_eq!(out, event, "{codings:?}");
        }
    }
}

#[test]
fn what_was_cut_is_not_whole() {
    let body = text(500);
    for codings in stacks() {
        let coded = encoded(&codings, &body);
        for len in 0..coded.len() {
            assert!(
                decoded(&codings, &coded[..len]).is_err(),
                "{codings:?} cut to {len} of {}",
                coded.len()
            );
        }
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    for coding in ALL {
        let codings = Codings(vec![coding]);
        let mut coded = encoded(&codings, b"{}");
        coded.extend_from_slice(b"{\"ssn\":1}");
        assert_eq!(
            decoded(&codings, &coded),
            Err(Undecodable::Broken),
            "{coding:?}"
        );
    }
}

#[test]
fn members_and_frames_follow_each_other() {
    for coding in [Coding::Gzip, Coding::Zstd] {
        let codings = Codings(vec![coding]);
        let coded = [encoded(&codings, b"[1,"), encoded(&codings, b"2]")].concat();
        assert_eq!(decoded(&codings, &coded).unwrap(), b"[1,2]");
        for cut in 0..coded.len() {
            let mut out = Vec::new();
            let mut decoder = Decoder::new(&codings);
            decoder.feed(&coded[..cut], &mut out).unwrap();
            decoder.feed(&coded[cut..], &mut out).unwrap();
            decoder.finish().unwrap();
            assert_eq!(out, b"[1,2]", "{coding:?} at {cut}");
        }
    }
}

#[test]
fn both_kinds_of_deflate_are_known_and_kept() {
    let deflate = Codings::of(&headers(CONTENT_ENCODING, &["deflate"])).unwrap();
    for coding in [Coding::Zlib, Coding::Deflate] {
        let coded = encoded(&Codings(vec![coding]), b"{\"a\":1}");
        for cut in 0..3 {
            let mut decoder = Decoder::new(&deflate);
            let mut out = Vec::new();
            decoder.feed(&coded[..cut], &mut out).unwrap();
            decoder.feed(&coded[cut..], &mut out).unwrap();
            assert_eq!(decoder.finish().unwrap(), Codings(vec![coding]));
            assert_eq!(out, b"{\"a\":1}");
        }
    }
}

#[test]
fn a_bomb_is_noticed_before_it_goes_off() {
    for codings in stacks() {
        // Two layers of a bomb are small enough to have come in one piece.
        let coded = encoded(&codings, &vec![b' '; 4 << 20]);
        let mut decoder = Decoder::new(&codings);
        let mut out = Vec::new();
        let most = (INFLATED_FREE + INFLATION_MAX * coded.len() as u64) as usize;
        if most < 4 << 20 {
            let fed = decoder.feed(&coded, &mut out);
            assert_eq!(fed, Err(Undecodable::Inflation), "{codings:?}");
            assert!(out.len() <= most, "{codings:?}: {} of {most}", out.len());
        }
    }
    let honest = encoded(&Codings(vec![Coding::Gzip]), &vec![b' '; 1 << 20]);
    assert!(decoded(&Codings(vec![Coding::Gzip]), &honest).is_ok());
}

#[test]
fn the_output_stops_at_its_limit_within_one_piece() {
    for codings in stacks() {
        let coded = encoded(&codings, &vec![b' '; 1 << 20]);
        let mut out = Vec::new();
        let mut decoder = Decoder::new(&codings).limited(100_000);
        assert_eq!(decoder.feed(&coded, &mut out), Err(Undecodable::TooLarge));
        assert!(out.len() <= 100_000, "{codings:?}: {}", out.len());
    }
}

#[test]
fn a_window_beyond_what_the_web_allows_is_refused() {
    use compression_codecs::zstd::params::CParameter;
    for (bits, good) in [
        (ZSTD_WINDOW_BITS_MAX, true),
        (ZSTD_WINDOW_BITS_MAX + 1, false),
    ] {
        let window = CParameter::window_log(bits);
        let mut layers: Vec<Box<dyn EncodeV2 + Send>> =
            vec![Box::new(ZstdEncoder::new_with_params(1, &[window]))];
        let mut coded = Vec::new();
        wrap(&mut layers, &text(100_000), Push::Feed, &mut coded).unwrap();
        wrap(&mut layers, &[], Push::Finish, &mut coded).unwrap();
        assert_eq!(
            decoded(&Codings(vec![Coding::Zstd]), &coded).is_ok(),
            good,
            "{bits}"
        );
    }
}

#[track_caller]
fn check(lines: &[&str], expected: Result<&[Coding], Unknown>) {
    let found = Codings::of(&headers(CONTENT_ENCODING, lines));
    assert_eq!(
        found,
        expected.map(|codings| Codings(codings.to_vec())),
        "{lines:?}"
    );
}

#[test]
fn content_encoding_is_a_list_over_all_lines() {
    check(&[], Ok(&[]));
    for none in ["", "identity", "Identity", "identity, identity", " , "] {
        check(&[none], Ok(&[]));
    }
    check(&["gzip"], Ok(&[Coding::Gzip]));
    check(&["X-GZIP"], Ok(&[Coding::Gzip]));
    check(&["deflate, br"], Ok(&[Coding::Zlib, Coding::Brotli]));
    check(
        &["zstd", "identity", "gzip"],
        Ok(&[Coding::Zstd, Coding::Gzip]),
    );
    for unknown in [
        "compress",
        "gzip;q=1",
        "aes128gcm",
        "gzip gzip",
        "gzip, br, gzip",
        "dcz",
    ] {
        check(&[unknown], Err(Unknown));
    }
    check(&["gzip", "gzip", "gzip"], Err(Unknown));
}

#[test]
fn only_what_can_be_decoded_is_asked_for() {
    for (asked, sent) in [
        (&[][..], "identity"),
        (&["*"], "identity"),
        (&["gzip, deflate, br, zstd"], "gzip, deflate, br, zstd"),
        (
            &["gzip;q=0.5, compress", "br;q=1.0, *;q=0"],
            "gzip;q=0.5, br;q=1.0",
        ),
        (&["dcb, dcz"], "identity"),
        (&["identity;q=0, x-gzip"], "identity;q=0, x-gzip"),
    ] {
        let mut headers = headers(ACCEPT_ENCODING, asked);
        accept(&mut headers);
        assert_eq!(headers.get_all(ACCEPT_ENCODING).iter().count(), 1);
        assert_eq!(headers[ACCEPT_ENCODING], sent, "{asked:?}");
    }
}

/// A codec's own window ends where none of ours does.
#[test]
fn nothing_is_left_in_a_codec_when_its_input_is_used_up() {
    for coding in ALL {
        let codings = Codings::from([coding]);
        for len in (WINDOW - 3..WINDOW + 3).chain(2 * WINDOW - 3..2 * WINDOW + 40) {
            let body = vec![b'a'; len];
            let coded = encoded(&codings, &body);
            for last in 1..4 {
                let mut decoder = Decoder::new(&codings);
                let mut out = Vec::new();
                for piece in [&coded[..coded.len() - last], &coded[coded.len() - last..]] {
                    decoder.feed(piece, &mut out).unwrap();
                }
                assert_eq!(out.len(), len, "{coding:?}");
                assert_eq!(decoder.finish(), Ok(codings.clone()), "{len} {last}");
            }
        }
    }
}
