//! How a run goes on: hears what happened and when, and says what is to be done. It does nothing itself,
//! so every order of events can be tried without a VMM.

use crate::{
    end::{Stage, Why},
    halt,
};
use banger_doc::{Desire, Phase};
use banger_machine::Event;
use std::time::{Duration, Instant};

/// How long a VMM that was killed may take to be gone.
pub(crate) const REAP_LIMIT: Duration = Duration::from_secs(20);
/// How long a guest may take to shut down if a signal asks for it.
const SIGNAL_GRACE: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    /// Somebody asks for this, and gives an orderly stop so much time.
    Wanted(Desire, Duration),
    /// A signal asks the supervisor to end.
    Signal,
    /// The VMM told something.
    Machine(Event),
    /// The guest's agent answers.
    Agent,
    /// The agent could not be asked to shut the guest down.
    Deaf,
    /// The power button was pressed; the guest may take so long to react.
    Button(Duration),
    /// A guest that says it has halted does not answer.
    Silent,
    /// It answers.
    Alive,
    /// The guest's clock may be wrong, and why.
    ClockJumped(String),
    /// The VMM has ended.
    Ended,
    /// Time passed.
    Time,
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Act {
    /// Write down how the VM stands.
    Tell,
    /// Write this into the log.
    Log(String),
    /// Look at what is wanted: it may be possible by now.
    Obey,
    /// Have the VMM hold the guest still.
    Pause,
    /// Have the VMM let the guest go on, as somebody asked, or because it has to shut down.
    Resume { asked: bool },
    /// Press the power button.
    PressPower,
    /// Ask the agent to shut the guest down within this time.
    ShutDown(Duration),
    /// Kill the VMM.
    Kill,
    /// Wait for the agent.
    AwaitAgent,
    /// Wait for the image's init.
    AwaitBoot,
    /// Find out whether the guest has halted.
    AskHalted,
    /// Set the guest's clock.
    SetClock,
    /// Follow what listens in the guest, if that is wanted.
    Follow,
}

/// A stop that was asked for.
#[derive(Clone, Copy, Debug)]
struct Stop {
    deadline: Instant,
    given: Duration,
    /// Since when it is enforced.
    forced: Option<Instant>,
}

/// Where a run is.
#[derive(Debug)]
pub(crate) struct Life {
    phase: Phase,
    stage: Stage,
    why: Why,
    /// Whether the VMM was killed because its guest had halted.
    halted: bool,
    stop: Option<Stop>,
    /// Whether the guest may have been told a time that is wrong since, before it could be asked.
    clock_is_behind: bool,
    last_words: halt::Console,
}

impl Life {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Preparing,
            stage: Stage::default(),
            why: Why::default(),
            halted: false,
            stop: None,
            clock_is_behind: false,
            last_words: halt::Console::default(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Says whether a stop was asked for.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Returns how far it came, who wanted the end, and whether the guest had halted.
    pub(crate) fn end(self) -> (Stage, Why, bool) {
        (self.stage, self.why, self.halted)
    }

    /// Returns when to say that time has passed, if it matters.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stop.map(|stop| stop.forced.map_or(stop.deadline, |at| at + REAP_LIMIT))
    }

    /// Says whether the VMM was killed and is there all the same.
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.stop.and_then(|stop| stop.forced).is_some_and(|at| now >= at + REAP_LIMIT)
    }

    /// Hears what happened.
    pub(crate) fn hear(&mut self, heard: Heard, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        match heard {
            Heard::Wanted(desire, grace) => self.wanted(desire, grace, now, &mut acts),
            Heard::Signal => {
                acts.push(Act::Log("asked to end by a signal".into()));
                self.begin_stop(SIGNAL_GRACE, now, &mut acts);
            }
            Heard::Machine(event) => self.machine(event, &mut acts),
            Heard::Agent => self.agent(&mut acts),
            Heard::Deaf => {
                let words = "the agent does not answer: pressing the power button";
                acts.extend([Act::Log(words.into()), Act::PressPower]);
            }
            Heard::Button(limit) => self.pressed(limit, now),
            Heard::Silent => self.is_silent(now, &mut acts),
            Heard::Alive => {
                self.last_words.answered();
                self.ask_halted(&mut acts);
            }
            Heard::ClockJumped(why) => self.set_clock(&why, &mut acts),
            // What comes now, checking the disks, takes a moment.
            Heard::Ended => self.enter(Phase::Stopping, &mut acts),
            Heard::Time => self.enforce(now, &mut acts),
        }
        acts
    }

    /// Hears what the guest writes to its console.
    pub(crate) fn hear_console(&mut self, bytes: &[u8]) -> Vec<Act> {
        let mut acts = Vec::new();
        self.last_words.hear(bytes);
        self.ask_halted(&mut acts);
        acts
    }

    fn wanted(&mut self, desire: Desire, grace: Duration, now: Instant, acts: &mut Vec<Act>) {
        match (desire, self.phase) {
            (Desire::Stopped, _) => self.begin_stop(grace, now, acts),
            (Desire::Killed, _) => {
                self.why = Why::Killed;
                self.kill(now, acts);
            }
            (Desire::Paused, Phase::Booting | Phase::Ready) => acts.push(Act::Pause),
            (Desire::Running, Phase::Paused) => acts.push(Act::Resume { asked: true }),
            _ => {}
        }
    }

    fn machine(&mut self, event: Event, acts: &mut Vec<Act>) {
        match event {
            Event::Launched if self.stage == Stage::Preparing => {
                self.stage = Stage::Launched;
                if self.phase == Phase::Preparing {
                    self.enter(Phase::Booting, acts);
                }
                // A pause that was asked for before.
                acts.extend([Act::Obey, Act::AwaitAgent]);
            }
            Event::Paused if matches!(self.phase, Phase::Booting | Phase::Ready) => {
                self.enter(Phase::Paused, acts);
            }
            Event::Resumed if self.phase == Phase::Paused => {
                let answered = self.stage == Stage::Ready;
                self.enter(if answered { Phase::Ready } else { Phase::Booting }, acts);
                self.set_clock("the guest was paused", acts);
                self.last_words.doubt();
                self.ask_halted(acts);
            }
            Event::GuestShutdown | Event::GuestReset | Event::GuestPanic => {
                acts.push(Act::Log(format!("the VMM says {event:?}")));
                if self.why == Why::Unasked {
                    self.why = Why::Guest(event);
                }
            }
            _ => {}
        }
    }

    fn agent(&mut self, acts: &mut Vec<Act>) {
        self.stage = Stage::Ready;
        if self.phase == Phase::Booting {
            self.phase = Phase::Ready;
        }
        // First: somebody waits for it.
        acts.extend([Act::Tell, Act::AwaitBoot]);
        if std::mem::take(&mut self.clock_is_behind) {
            self.set_clock("the clock may have jumped while the guest booted", acts);
        }
        // A pause that was asked for while the guest booted.
        acts.extend([Act::Follow, Act::Obey]);
    }

    /// Begins to shut the guest down, or shortens the time it has.
    fn begin_stop(&mut self, grace: Duration, now: Instant, acts: &mut Vec<Act>) {
        let deadline = now + grace;
        if let Some(stop) = &mut self.stop {
            if deadline < stop.deadline {
                stop.deadline = deadline;
                stop.given = grace;
            }
            return;
        }
        if self.why == Why::Unasked {
            self.why = Why::Stopped;
        }
        acts.push(Act::Log(format!("shutting the guest down, within {} ms", grace.as_millis())));
        if self.phase == Phase::Paused {
            acts.push(Act::Resume { asked: false });
        }
        self.stop = Some(Stop { deadline, given: grace, forced: None });
        self.enter(Phase::Stopping, acts);
        // Where nobody inside can be asked, all there is is the power button.
        let answers = self.stage == Stage::Ready;
        acts.push(if answers { Act::ShutDown(grace) } else { Act::PressPower });
    }

    fn pressed(&mut self, limit: Duration, now: Instant) {
        let Some(stop) = &mut self.stop else { return };
        stop.deadline = stop.deadline.min(now + limit);
        if self.stage != Stage::Ready {
            stop.given = stop.deadline.saturating_duration_since(now);
        }
    }

    /// Ends a guest whose time is over.
    fn enforce(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let Some(Stop { forced: None, deadline, given }) = self.stop else { return };
        if now >= deadline {
            if self.why == Why::Stopped {
                self.why = Why::TooSlow(given);
            }
            self.kill(now, acts);
        }
    }

    fn kill(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let unasked = Stop { deadline: now, given: Duration::ZERO, forced: None };
        let stop = self.stop.get_or_insert(unasked);
        if stop.forced.is_none() {
            stop.forced = Some(now);
            acts.extend([Act::Log("killing the VMM".into()), Act::Kill]);
            self.enter(Phase::Stopping, acts);
        }
    }

    fn is_silent(&mut self, now: Instant, acts: &mut Vec<Act>) {
        self.last_words.answered();
        // A guest that is paused cannot answer; it is asked when it goes on.
        if !self.last_words.says_so() || self.phase == Phase::Paused {
            return;
        }
        acts.push(Act::Log("the guest has halted".into()));
        if self.why == Why::Unasked {
            self.why = Why::Guest(Event::GuestShutdown);
        }
        self.halted = true;
        self.kill(now, acts);
    }

    fn ask_halted(&mut self, acts: &mut Vec<Act>) {
        if self.last_words.ask() {
            acts.push(Act::AskHalted);
        }
    }

    /// Has the guest's clock set to the host's, as soon as there is somebody who can.
    fn set_clock(&mut self, why: &str, acts: &mut Vec<Act>) {
        match self.phase {
            Phase::Ready => {
                acts.push(Act::Log(format!("{why}: setting the guest's clock")));
                acts.push(Act::SetClock);
            }
            // Whatever runs on later is set then.
            Phase::Preparing | Phase::Booting => self.clock_is_behind = true,
            Phase::Paused | Phase::Stopping => {}
        }
    }

    fn enter(&mut self, phase: Phase, acts: &mut Vec<Act>) {
        self.phase = phase;
        acts.push(Act::Tell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HALTED: &[u8] = b"[   12.3] reboot: System halted\n";

    /// Hears one after the other, a second apart; returns what was to be done, but for words.
    fn heard(life: &mut Life, begin: Instant, all: Vec<Heard>) -> Vec<Act> {
        let mut acts = Vec::new();
        for (heard, second) in all.into_iter().zip(0..) {
            acts.extend(life.hear(heard, begin + SECOND * second));
        }
        acts.retain(|act| !matches!(act, Act::Log(_) | Act::Tell));
        acts
    }

    fn booted() -> Vec<Heard> {
        vec![Heard::Machine(Event::Launched), Heard::Agent]
    }

    const STOP: Heard = Heard::Wanted(Desire::Stopped, Duration::from_secs(10));

    #[test]
    fn a_guest_comes_up_and_shuts_down() {
        let (mut life, begin) = (Life::new(), Instant::now());
        let acts = heard(&mut life, begin, booted());
        assert_eq!(acts, [Act::Obey, Act::AwaitAgent, Act::AwaitBoot, Act::Follow, Act::Obey]);
        assert_eq!((life.phase(), life.deadline()), (Phase::Ready, None));
        let acts = heard(&mut life, begin, vec![STOP]);
        assert_eq!(acts, [Act::ShutDown(SECOND * 10)]);
        assert_eq!((life.phase(), life.deadline()), (Phase::Stopping, Some(begin + SECOND * 10)));
        let ends = vec![Heard::Machine(Event::GuestShutdown), Heard::Ended];
        assert_eq!(heard(&mut life, begin, ends), []);
        assert_eq!(life.end(), (Stage::Ready, Why::Stopped, false));
    }

    #[test]
    fn who_gets_more_time_than_there_is_still_ends_in_time() {
        let (mut life, begin) = (Life::new(), Instant::now());
        heard(&mut life, begin, booted());
        let longer = Heard::Wanted(Desire::Stopped, SECOND * 100);
        heard(&mut life, begin, vec![longer.clone(), STOP, longer]);
        assert_eq!(life.deadline(), Some(begin + SECOND * 11));
        assert_eq!(life.hear(Heard::Time, begin + SECOND * 10), []);
        assert!(life.hear(Heard::Time, begin + SECOND * 11).contains(&Act::Kill));
        assert!(!life.is_stuck(begin + SECOND * 11));
        assert!(life.is_stuck(begin + SECOND * 11 + REAP_LIMIT));
        assert_eq!(life.end(), (Stage::Ready, Why::TooSlow(SECOND * 10), false));
    }

    #[test]
    fn without_an_agent_the_power_button_is_all_there_is() {
        let (mut life, begin) = (Life::new(), Instant::now());
        let mut acts = heard(&mut life, begin, vec![Heard::Machine(Event::Launched), STOP]);
        assert_eq!(acts.pop(), Some(Act::PressPower));
        life.hear(Heard::Button(Duration::ZERO), begin + SECOND);
        assert!(life.hear(Heard::Time, begin + SECOND).contains(&Act::Kill));
        assert_eq!(life.end(), (Stage::Launched, Why::TooSlow(Duration::ZERO), false));

        let mut life = Life::new();
        heard(&mut life, begin, [booted(), vec![STOP]].concat());
        assert!(life.hear(Heard::Deaf, begin + SECOND * 3).contains(&Act::PressPower));
        life.hear(Heard::Button(SECOND * 5), begin + SECOND * 3);
        assert_eq!(life.deadline(), Some(begin + SECOND * 8));
        life.hear(Heard::Time, begin + SECOND * 8);
        assert_eq!(life.end(), (Stage::Ready, Why::TooSlow(SECOND * 10), false));
    }

    #[test]
    fn a_guest_that_is_paused_goes_on_to_shut_down_and_gets_its_time_otherwise() {
        let (mut life, begin) = (Life::new(), Instant::now());
        heard(&mut life, begin, booted());
        let wants = |desire| Heard::Wanted(desire, SECOND * 10);
        let pause = vec![wants(Desire::Paused), Heard::Machine(Event::Paused)];
        assert_eq!(heard(&mut life, begin, pause), [Act::Pause]);
        // Nobody is told of a jump who cannot hear it; afterwards the time is set in any case.
        assert_eq!(heard(&mut life, begin, vec![Heard::ClockJumped("x".into())]), []);
        let goes_on = vec![wants(Desire::Running), Heard::Machine(Event::Resumed)];
        assert_eq!(heard(&mut life, begin, goes_on), [Act::Resume { asked: true }, Act::SetClock]);
        heard(&mut life, begin, vec![Heard::Machine(Event::Paused), STOP]);
        assert_eq!(life.phase(), Phase::Stopping);

        let mut life = Life::new();
        heard(&mut life, begin, [booted(), vec![Heard::Machine(Event::Paused)]].concat());
        let acts = heard(&mut life, begin, vec![STOP]);
        assert_eq!(acts, [Act::Resume { asked: false }, Act::ShutDown(SECOND * 10)]);
    }

    #[test]
    fn a_time_that_was_wrong_before_the_agent_is_set_when_it_is_there() {
        let (mut life, begin) = (Life::new(), Instant::now());
        let jump = Heard::ClockJumped("the host slept".into());
        let acts = heard(&mut life, begin, [vec![jump], booted()].concat());
        assert_eq!(acts.iter().filter(|act| **act == Act::SetClock).count(), 1);
    }

    #[test]
    fn a_guest_that_has_halted_is_ended_and_one_that_only_says_so_is_not() {
        let (mut life, begin) = (Life::new(), Instant::now());
        heard(&mut life, begin, booted());
        assert_eq!(life.hear_console(HALTED), [Act::AskHalted]);
        assert_eq!(heard(&mut life, begin, vec![Heard::Alive]), []);
        assert_eq!(life.hear_console(HALTED), [Act::AskHalted]);
        assert_eq!(heard(&mut life, begin, vec![Heard::Silent]), [Act::Kill]);
        let (stage, why, halted) = life.end();
        assert_eq!((stage, why), (Stage::Ready, Why::Guest(Event::GuestShutdown)));
        assert!(halted);
    }

    #[test]
    fn who_killed_it_is_not_forgotten() {
        let (mut life, begin) = (Life::new(), Instant::now());
        let kill = Heard::Wanted(Desire::Killed, SECOND);
        let all = [booted(), vec![STOP, kill.clone(), kill, Heard::Machine(Event::GuestReset)]];
        let acts = heard(&mut life, begin, all.concat());
        assert_eq!(acts.iter().filter(|act| **act == Act::Kill).count(), 1);
        assert_eq!(life.end(), (Stage::Ready, Why::Killed, false));
    }

    fn anything() -> impl Strategy<Value = Heard> {
        let desires = [Desire::Running, Desire::Paused, Desire::Stopped, Desire::Killed];
        let events = [
            Event::Launched,
            Event::Paused,
            Event::Resumed,
            Event::GuestShutdown,
            Event::GuestReset,
            Event::GuestPanic,
        ];
        let seconds = (0..20_u64).prop_map(Duration::from_secs);
        prop_oneof![
            (prop::sample::select(desires.to_vec()), seconds.clone())
                .prop_map(|(desire, grace)| Heard::Wanted(desire, grace)),
            prop::sample::select(events.to_vec()).prop_map(Heard::Machine),
            seconds.prop_map(Heard::Button),
            prop::sample::select(vec![
                Heard::Signal,
                Heard::Agent,
                Heard::Deaf,
                Heard::Silent,
                Heard::Alive,
                Heard::ClockJumped("it jumped".into()),
                Heard::Time,
            ]),
        ]
    }

    proptest! {
        #[test]
        fn in_any_order_a_run_goes_one_way_and_ends(all in prop::collection::vec(anything(), 0..60)) {
            let (mut life, mut now) = (Life::new(), Instant::now());
            let (mut kills, mut awaits) = (0, 0);
            for heard in all {
                let (before, deadline) = (life.phase(), life.deadline());
                let acts = life.hear(heard, now);
                now += SECOND;
                kills += acts.iter().filter(|act| **act == Act::Kill).count();
                awaits += acts.iter().filter(|act| **act == Act::AwaitAgent).count();
                let follows = acts.contains(&Act::Pause);
                prop_assert!(!follows || matches!(before, Phase::Booting | Phase::Ready));
                if before == Phase::Stopping {
                    prop_assert_eq!(life.phase(), Phase::Stopping);
                }
                if before != life.phase() {
                    prop_assert!(acts.contains(&Act::Tell), "{:?} is not told", life.phase());
                }
                // Once there is an end, it comes no later for what is heard, but by the kill itself.
                if let (Some(old), Some(new)) = (deadline, life.deadline()) {
                    prop_assert!(new <= old || acts.contains(&Act::Kill));
                }
            }
            prop_assert!(kills <= 1 && awaits <= 1);
            life.hear(Heard::Wanted(Desire::Stopped, SECOND), now);
            now = life.deadline().expect("an end");
            life.hear(Heard::Time, now);
            prop_assert!(life.is_stuck(now + REAP_LIMIT));
            prop_assert!(life.end().1 != Why::Unasked);
        }
    }
}
