//! See [`crate::fuzzing`].

use super::protocol::{Answer, Handle, Question};
use crate::{
    fuzzing::{head_and_body, is_for_people},
    http::Response,
};

/// `STATUS` and the body of an answer: a lease is granted by its own server only, and for the lock that was asked for.
pub fn lockgate_answer(data: &[u8]) {
    let Some((status, body)) = head_and_body(data) else { return };
    let response = Response::of(status.trim().parse().unwrap_or(200), &[], body);
    let ours = Handle { uuid: "u".to_owned(), lock: "x".to_owned() };
    let acquire = Question::Acquire { lock: "x", shared: false };
    for question in [acquire, Question::Renew(&ours), Question::Release(&ours)] {
        let answer = question.answer(&response);
        assert!(response.status == 200 || matches!(answer, Answer::Failed(_)));
        match answer {
            Answer::Granted(handle) => assert!(handle.lock == "x" && !handle.uuid.is_empty()),
            Answer::Failed(why) => is_for_people(&why),
            _ => {}
        }
    }
}
