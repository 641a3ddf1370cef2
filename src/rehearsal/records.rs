//! A stream of records in a rehearsal: as on the road, one by one; what ends the message there refuses it here.

use super::{Keys, head_alone, rewrite};
use crate::audit::{Record, Side};
use crate::body::records::{Cutter, Document, Framing, Piece};
use crate::error::{Code, Error};
use crate::proxy::Limits;
use crate::proxy::letter::Front;
use crate::proxy::refusal::Failure;
use crate::proxy::route::Way;
use crate::transform::Message;

/// As `proxy::flow`.
pub(super) fn stream(
    way: &Way<'_>,
    keys: &mut Keys,
    side: Side,
    front: &mut Front<'_>,
    framing: Framing,
    body: Vec<u8>,
    record: &mut Record,
) -> Result<Vec<u8>, Error> {
    head_alone(way, keys, side, front, record)?;
    let slip = record.flows(side);
    let mut cutter = Cutter::new(framing, Limits::default().record);
    cutter.push(&body);
    cutter.end();
    let mut out = Vec::new();
    while let Some(piece) = cutter.cut() {
        let (all, text) = match piece {
            Piece::Record { all, text } => (all, text),
            Piece::Between(between) => {
                out.extend_from_slice(&cutter.bytes()[between]);
                continue;
            }
            Piece::TooLong => {
                let code = match side {
                    Side::Request => Code::RecordTooLarge,
                    Side::Response => Code::UpstreamUnreadable,
                };
                let error = code.because("a record over the limit");
                way.unreadable(side, error, "too-large", record)?;
                cutter.pass_over();
                continue;
            }
        };
        let document = Document::of(framing, cutter.bytes(), all, text);
        let rewritten = document
            .text()
            .map(|text| rewrite(way, side, &Message::json(text), keys));
        match rewritten {
            None => out.extend_from_slice(document.whole()),
            Some(Ok((new, _, tally))) => {
                slip.tally(&tally);
                document.write(&new, &mut out);
            }
            Some(Err(refusal)) => {
                let (error, why) = Failure::from(refusal).on(side);
                match why {
                    Some(why) => way.unreadable(side, error, why, record)?,
                    None => way.refuse(error, record)?,
                }
                out.extend_from_slice(document.whole());
            }
        }
    }
    Ok(if way.observing { body } else { out })
}
