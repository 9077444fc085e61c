//! Frames that cannot be read, made from one that can.

use prost::Message as _;
use starling_schemas::codes::Fault;
use starling_schemas::event::event::Body;
use starling_schemas::event::{AgeBand, Event, Feature, FeatureUsed};

use super::rng::Draw;

/// Makes an unreadable frame out of a readable event, and says for what it should be quarantined.
pub(super) fn mangle(event: &Event, encoded: &[u8], draw: &mut Draw, out: &mut Vec<u8>) -> Fault {
    out.clear();
    let with = |change: &dyn Fn(&mut Event), out: &mut Vec<u8>| {
        // One fault only: everything else is as good as it can be, so that no refusal comes first.
        let mut changed = event.clone();
        if changed.actor.is_empty() {
            changed.actor.push_str("+4500000000");
        }
        let choices = changed.choices.get_or_insert_default();
        choices.analytics_consent = true;
        choices.age_band = AgeBand::Adult.into();
        changed.body = Some(Body::FeatureUsed(FeatureUsed { feature: Feature::Reaction.into() }));
        change(&mut changed);
        // A Vec grows: encoding into it cannot fail.
        let _ = changed.encode(out);
    };
    match draw.below(9) {
        0 => Fault::Empty,
        1 => {
            // The body is last and says its length: it now says one byte too many.
            out.extend_from_slice(encoded.get(..encoded.len().saturating_sub(1)).unwrap_or_default());
            Fault::Malformed
        }
        2 => {
            // In the middle of the time's varint.
            out.extend_from_slice(encoded.get(..3).unwrap_or_default());
            Fault::Malformed
        }
        3 => {
            // The actor's field as a varint.
            out.extend_from_slice(&[0x10, 0x2a]);
            out.extend_from_slice(encoded);
            Fault::WrongWireType
        }
        4 => {
            let garbage = ["not-a-number", "+12", "+0049000000", "call me", "+99999999999999999999"];
            let number = garbage.get(draw.below(garbage.len() as u32) as usize).copied().unwrap_or("?");
            with(&|e| e.actor = number.to_owned(), out);
            Fault::InvalidNumber
        }
        5 => {
            with(&|e| e.event_time_ms = 978_307_200_000, out);
            Fault::TimeOutOfRange
        }
        6 => {
            with(&|e| e.event_time_ms += 20 * 366 * 86_400_000, out);
            Fault::TimeOutOfRange
        }
        7 => {
            with(&|e| e.body = None, out);
            Fault::UnknownEvent
        }
        _ => {
            // An unknown field 900 of 20 KiB after a good event.
            out.extend_from_slice(encoded);
            out.extend_from_slice(&[0xa2, 0x38, 0x80, 0xa0, 0x01]);
            out.resize(out.len() + 20_480, b'x');
            Fault::TooLarge
        }
    }
}
