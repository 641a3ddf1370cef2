//! What one value costs in `seal` and `token`, and the same work in aws-lc-rs beside it.

use aws_lc_rs::aead;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fieldveil::dek::{Dek, MATERIAL_LEN, Material, schedule};
use fieldveil::seal::{Opener, Sealer, siv_seal};
use fieldveil::token::{ClassHint, Prefix, Record, Suite, Token, kek_id};
use std::hint::black_box;

struct Boxed(Box<[u8; MATERIAL_LEN]>);

impl Material for Boxed {
    fn expose(&self) -> &[u8; MATERIAL_LEN] {
        &self.0
    }
}

fn dek() -> Dek {
    let mut material = Box::new([0; MATERIAL_LEN]);
    let kid = schedule(&[7; 32], &mut material);
    Dek::new(kid, Box::new(Boxed(material)))
}

const AAD: &[u8; 60] = &[3; 60];
const NONCE: &[u8; 24] = b"twelve-bytesand-12-more!";

fn head(array: &[u8; 24]) -> [u8; 12] {
    *array.first_chunk().expect("12 of 24 bytes")
}

fn keys(c: &mut Criterion) {
    let dek = dek();
    let mut group = c.benchmark_group("key");
    group.bench_function("subkey of a body, XAES", |b| {
        b.iter(|| Sealer::new(&dek, black_box([5; 12])))
    });
    group.bench_function("expand, aws-lc-rs", |b| {
        b.iter(|| {
            aead::LessSafeKey::new(
                aead::UnboundKey::new(&aead::AES_256_GCM, black_box(&[5; 32])).expect("32 bytes"),
            )
        })
    });
    group.bench_function("schedule of a DEK", |b| {
        let mut material = [0; MATERIAL_LEN];
        b.iter(|| schedule(black_box(&[7; 32]), &mut material))
    });
    group.finish();
}

fn sealing(c: &mut Criterion) {
    let dek = dek();
    let sealer = Sealer::new(&dek, head(NONCE));
    let peer = aead::LessSafeKey::new(
        aead::UnboundKey::new(&aead::AES_256_GCM, &[5; 32]).expect("32 bytes"),
    );
    for len in [16, 256, 1024, 16 << 10] {
        let mut group = c.benchmark_group(format!("seal {len} bytes"));
        group.throughput(Throughput::Bytes(len as u64));
        let mut buf = Vec::with_capacity(len + 16);
        group.bench_function("Sealer", |b| {
            b.iter(|| {
                buf.clear();
                buf.resize(len, b'x');
                sealer.seal(black_box([9; 12]), AAD, &mut buf, 0);
                black_box(buf.last().copied())
            })
        });
        group.bench_function("aws-lc-rs, bare", |b| {
            b.iter(|| {
                buf.clear();
                buf.resize(len, b'x');
                let nonce = aead::Nonce::assume_unique_for_key(black_box([9; 12]));
                let tag = peer
                    .seal_in_place_separate_tag(nonce, aead::Aad::from(AAD), &mut buf)
                    .expect("short");
                buf.extend_from_slice(tag.as_ref());
                black_box(buf.last().copied())
            })
        });
        group.bench_function("AES-SIV", |b| {
            b.iter(|| {
                buf.clear();
                buf.resize(len, b'x');
                siv_seal(&dek, AAD, &mut buf, 0);
                black_box(buf.last().copied())
            })
        });
        group.finish();
    }
}

fn opening(c: &mut Criterion) {
    let dek = dek();
    let mut group = c.benchmark_group("open 16 bytes");
    let mut sealed = b"\"0123456789abcd\"".to_vec();
    Sealer::new(&dek, head(NONCE)).seal(*b"and-12-more!", AAD, &mut sealed, 0);
    let mut out = Vec::with_capacity(64);
    let mut opener = Opener::new();
    group.bench_function("same body", |b| {
        b.iter(|| {
            out.clear();
            opener
                .open(
                    &dek,
                    Suite::Xaes256Gcm,
                    Some(NONCE),
                    AAD,
                    black_box(&sealed),
                    &mut out,
                )
                .expect("genuine");
        })
    });
    group.bench_function("another body", |b| {
        b.iter_batched(
            Opener::new,
            |mut opener| {
                out.clear();
                opener
                    .open(
                        &dek,
                        Suite::Xaes256Gcm,
                        Some(NONCE),
                        AAD,
                        black_box(&sealed),
                        &mut out,
                    )
                    .expect("genuine");
            },
            BatchSize::SmallInput,
        )
    });
    group.finish();
}

fn text(c: &mut Criterion) {
    let dek = dek();
    let record = Record::build(&[(kek_id("keyring:demo/payments"), &[1; 64])]).expect("a record");
    let hint = ClassHint::of("ssn");
    let new = || {
        Prefix::new(
            Suite::Xaes256Gcm,
            hint,
            dek.kid(),
            Some(&record),
            Some(&head(NONCE)),
        )
    };
    let (prefix, rest) = (new(), [4; 44]);
    let mut out = Vec::with_capacity(1 << 16);
    let mut group = c.benchmark_group("token text");
    group.bench_function("prefix of a body", |b| b.iter(new));
    group.bench_function("write 16 bytes behind the prefix", |b| {
        b.iter(|| {
            out.clear();
            prefix.write(black_box(&rest), &mut out);
        })
    });
    group.bench_function("write 16 bytes, encoded whole", |b| {
        let payload = [6; 155];
        b.iter(|| {
            out.clear();
            out.extend_from_slice(b"fv1~");
            out.resize(4 + 207, 0);
            URL_SAFE_NO_PAD
                .encode_slice(black_box(&payload), &mut out[4..])
                .expect("room");
            out.push(b'~');
        })
    });
    let mut text = Vec::new();
    prefix.write(&rest, &mut text);
    let mut payload = Vec::with_capacity(256);
    group.bench_function("decode", |b| {
        b.iter(|| Token::decode(black_box(&text), &mut payload).map(|token| token.sealed.len()))
    });
    let sealer = Sealer::new(&dek, head(NONCE));
    let mut rest = Vec::with_capacity(64);
    group.bench_function("seal and write 16 bytes", |b| {
        b.iter(|| {
            out.clear();
            rest.clear();
            rest.extend_from_slice(b"and-12-more!");
            rest.extend_from_slice(black_box(b"\"0123456789abcd\""));
            sealer.seal(*b"and-12-more!", AAD, &mut rest, 12);
            prefix.write(&rest, &mut out);
        })
    });
    group.finish();
}

criterion_group!(benches, keys, sealing, opening, text);
criterion_main!(benches);
