//! Games whose players hold no connection between two requests: who is there, and when they are not any more.

use super::lifecycle::*;
use spawnpoint_core::lifecycle::{ActivityRule, Policy, Reason, Sight};
use spawnpoint_core::session::{Event, Notice, Phase, Status};
use spawnpoint_core::{Generation, PlayerId};

fn web() -> Policy {
    Policy {
        sight: Sight::Requests,
        ..Policy::default()
    }
}

/// One request, as reports tell it: it begins, and with the next report it is over.
fn click(life: &mut Life, second: i64, who: &str) {
    let id: PlayerId = player(who);
    life.does(second, Event::Connections(id.clone(), 1));
    // At the same moment as the arrival: not news, where requests count as activity.
    let _ = life.offer(at(second), &Event::Data(Some(id.clone()), at(second)));
    life.does(second + 1, Event::Connections(id, 0));
}

#[test]
fn a_reader_who_clicks_each_minute_stays_and_one_who_stops_is_idle() {
    let mut life = Life::ready(web());
    for minute in 0..20 {
        assert_eq!(life.runs_to(20 + minute * 60), None);
        click(&mut life, 20 + minute * 60, "ann");
        assert_eq!(life.session.present(at(50 + minute * 60)), 1);
    }
    assert_eq!(life.session.phase, Phase::Running);
    assert_eq!(life.heard(&Notice::PlayerJoined(player("ann"))), 1);
    assert_eq!(life.heard(&Notice::PlayerLeft(player("ann"))), 0);
    let last = 20 + 19 * 60;
    assert_eq!(life.runs_to(9_999), Some((at(last + 300), Reason::Idle)));
    assert_eq!(
        life.warnings(),
        [(last + 240, Reason::Idle), (last + 290, Reason::Idle)]
    );
}

#[test]
fn a_session_that_nobody_opened_is_never_joined() {
    let mut life = Life::ready(web());
    assert_eq!(life.runs_to(9_999), Some((at(70), Reason::NeverJoined)));
}

#[test]
fn a_request_that_came_and_went_between_two_reports_is_somebody_too() {
    let mut life = Life::ready(web());
    life.does(20, Event::Data(Some(player("ann")), at(19)));
    assert_eq!(life.session.phase, Phase::Running);
    assert_eq!(life.heard(&Notice::PlayerJoined(player("ann"))), 1);
    assert_eq!(life.next(), Some((at(20 + 300), Reason::Idle)));
}

#[test]
fn one_of_two_readers_leaves_by_doing_nothing_and_comes_back_by_a_click() {
    let mut life = Life::ready(web());
    click(&mut life, 20, "ann");
    for minute in 0..10 {
        click(&mut life, 30 + minute * 60, "ben");
        assert_eq!(life.runs_to(60 + minute * 60), None);
    }
    assert_eq!(life.session.present(at(600)), 1);
    assert_eq!(life.heard(&Notice::PlayerLeft(player("ann"))), 1);
    click(&mut life, 640, "ann");
    assert_eq!(life.heard(&Notice::PlayerJoined(player("ann"))), 2);
    // Both off the roster: nobody is there at once, and the grace counts.
    life.does(650, Event::Leave(player("ann")));
    life.does(660, Event::Leave(player("ben")));
    assert_eq!(life.runs_to(9_999), Some((at(690), Reason::Empty)));
}

#[test]
fn what_is_kept_open_keeps_its_player_there_but_not_active() {
    let mut life = Life::ready(web());
    life.does(20, Event::Connections(player("ann"), 1));
    click(&mut life, 200, "ben");
    click(&mut life, 400, "ben");
    assert_eq!(life.runs_to(600), None);
    assert_eq!(life.session.present(at(600)), 2, "ann's stream is open");
    assert_eq!(life.heard(&Notice::PlayerLeft(player("ann"))), 0);
    life.does(610, Event::Connections(player("ann"), 0));
    assert_eq!(life.heard(&Notice::PlayerLeft(player("ann"))), 1);
    assert_eq!(life.runs_to(9_999), Some((at(700), Reason::Idle)));
}

#[test]
fn a_reader_outlives_a_restart_and_a_replacement() {
    let mut life = Life::ready(web());
    click(&mut life, 20, "ann");
    // A restart: leases and activity are forgotten.
    for p in &mut life.session.roster {
        (p.lease_until, p.last_active, p.connections) = (None, None, 0);
    }
    life.does(200, Event::SightLost);
    life.does(210, Event::SightRegained);
    assert_eq!(life.runs_to(499), None, "nobody is taken for gone");
    assert_eq!(life.next(), Some((at(500), Reason::Idle)));
    click(&mut life, 499, "ann");
    // The game dies while nobody asks for anything, and takes four minutes to come back.
    life.crash(780);
    life.grant(781, 2);
    life.does(820, Event::Accepting(Generation(2)));
    assert_eq!(
        life.next(),
        Some((at(1_120), Reason::Idle)),
        "a whole timeout"
    );
    assert_eq!(life.heard(&Notice::PlayerLeft(player("ann"))), 0);
}

#[test]
fn heartbeats_count_and_where_they_alone_do_requests_are_still_presence() {
    let mut life = Life::ready(web());
    click(&mut life, 20, "ann");
    life.beat(300, Some("ann"), Status::Active, 0, None);
    assert_eq!(life.runs_to(500), None, "scrolling makes no request");
    life.beat(501, Some("ann"), Status::Inactive, 0, None);
    assert_eq!(life.runs_to(9_999), Some((at(600), Reason::Idle)));
    let mut life = Life::ready(Policy {
        activity: ActivityRule::Heartbeat,
        ..web()
    });
    click(&mut life, 20, "ann");
    click(&mut life, 300, "ann");
    assert_eq!(life.session.present(at(599)), 1);
    assert_eq!(life.runs_to(9_999), Some((at(320), Reason::Idle)));
}

#[test]
fn without_an_idle_timeout_who_came_stays_to_the_end() {
    let mut life = Life::ready(Policy {
        idle: None,
        ..web()
    });
    click(&mut life, 20, "ann");
    assert_eq!(
        life.session.next_look(at(30)),
        Some(at(1 + 1_800 - 60)),
        "a warning"
    );
    assert_eq!(life.runs_to(9_999), Some((at(1_801), Reason::MaxDuration)));
    let mut life = Life::ready(Policy {
        idle: None,
        max: None,
        max_limit: None,
        ..web()
    });
    click(&mut life, 20, "ann");
    assert_eq!((life.next(), life.session.next_look(at(30))), (None, None));
}
