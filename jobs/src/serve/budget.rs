//! `GET /v1/budget`: what `starling budget --json` tells, of all teams or of one's own.

use axum::Extension;
use axum::extract::State;
use starling_query::Room;

use super::Door;
use super::told::{Answer, json_of, unread};
use super::way_in::Caller;
use crate::budget;

/// Whoever may see only its own team's is told of that and of the scheduled releases; blocks and the worst case are everybody's.
pub(super) async fn show(State(door): State<Door>, Extension(caller): Extension<Caller>) -> Answer {
    let team = (!caller.who.role.may(Room::AllBudgets)).then_some(caller.who.team.as_str());
    json_of(&budget::told(&door.home, team).await.map_err(|error| unread(&error))?)
}
