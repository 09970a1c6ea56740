use super::*;

const MAX_AGE: u64 = 5;

/// One user, whose row is new once a change has committed. Time passes with each step.
struct World {
    now: u64,
    coherence: Coherence,
    committed: bool,
    /// When the change was acknowledged; 0: not yet.
    acknowledged: u64,
    number: u64,
    /// The records that loaders have read: the stamp, and whether the row was new.
    loading: [(Stamp, bool); 2],
    cached: Option<(Stamp, bool)>,
    /// The poll of the log: when it began, and whether it saw the change.
    begun: u64,
    saw: bool,
    /// The call that is judged: when it began, whether it found the log followed, and what it found in the cache.
    called: u64,
    fresh: bool,
    found: Option<(Stamp, bool)>,
}

const SLOT: Slot = Slot(0);

impl World {
    fn new() -> Self {
        let coherence = Coherence {
            counter: AtomicU64::new(0),
            everyone: AtomicU64::new(0),
            slots: Box::new([AtomicU64::new(0)]),
            followed: AtomicU64::new(0),
            keys: RandomState::new(),
        };
        Self {
            now: 1,
            coherence,
            committed: false,
            acknowledged: 0,
            number: 0,
            loading: [(Stamp(0), false); 2],
            cached: None,
            begun: 0,
            saw: false,
            called: 0,
            fresh: false,
            found: None,
        }
    }

    /// Returns true if the call that is judged began `span` or more after the change was acknowledged.
    fn is_bound(&self, span: u64) -> bool {
        self.acknowledged > 0 && self.called >= self.acknowledged + span
    }
}

type Step = fn(&mut World);

/// Runs the actors' steps in every order that keeps each actor's own. `hit` says of a world whether its hit was right, if it had one.
/// Returns how many hits there were, and how many of them were wrong.
fn in_every_order(actors: &[&[Step]], hit: impl Fn(&World) -> Option<bool>) -> [usize; 2] {
    let mut counts = [0; 2];
    let mut run = |order: &[usize]| {
        let (mut world, mut at) = (World::new(), [0; 4]);
        for actor in order {
            actors[*actor][at[*actor]](&mut world);
            at[*actor] += 1;
            world.now += 1;
        }
        let right = hit(&world);
        counts[0] += usize::from(right.is_some());
        counts[1] += usize::from(right == Some(false));
    };
    extend(actors, &mut Vec::new(), &mut [0; 4], &mut run);
    counts
}

fn extend(actors: &[&[Step]], order: &mut Vec<usize>, done: &mut [usize; 4], run: &mut impl FnMut(&[usize])) {
    let left: Vec<usize> = (0..actors.len()).filter(|actor| done[*actor] < actors[*actor].len()).collect();
    if left.is_empty() {
        run(order);
    }
    for actor in left {
        order.push(actor);
        done[actor] += 1;
        extend(actors, order, done, run);
        order.pop();
        done[actor] -= 1;
    }
}

fn first() -> [Step; 3] {
    [
        |world| world.loading[0].0 = world.coherence.stamp(),
        |world| world.loading[0].1 = world.committed,
        |world| world.cached = Some(world.loading[0]),
    ]
}

fn second() -> [Step; 3] {
    [
        |world| world.loading[1].0 = world.coherence.stamp(),
        |world| world.loading[1].1 = world.committed,
        |world| world.cached = Some(world.loading[1]),
    ]
}

const READER: [Step; 3] = [
    |world| world.called = world.now,
    |world| world.fresh = world.coherence.is_followed(Moment(world.now), Duration::from_nanos(MAX_AGE)),
    |world| {
        let Some((stamp, new)) = world.cached.filter(|(stamp, _)| world.coherence.is_unchanged(SLOT, *stamp))
        else {
            return;
        };
        world.found = Some((stamp, new));
    },
];

/// A change in this process: a call that began after it was acknowledged finds nothing older.
#[test]
fn after_a_change_was_acknowledged_nothing_older_is_found_in_its_process() {
    let writer: [Step; 4] = [
        |world| world.committed = true,
        |world| world.number = world.coherence.take_number(),
        |world| world.coherence.store_number(SLOT, world.number),
        |world| world.acknowledged = world.now,
    ];
    let reader = [READER[0], READER[2]];
    let of = |loader: &[Step]| {
        in_every_order(&[&writer, loader, &second(), &reader], |world| {
            world.found.map(|(_, new)| new || !world.is_bound(1))
        })
    };
    let [hits, stale] = of(&first());
    assert!(hits > 50_000 && stale == 0, "{hits} hits, {stale} of them stale");
    // The test sees it where the stamp is taken after the row was read.
    let late: [Step; 3] = [first()[1], first()[0], first()[2]];
    assert_ne!(of(&late)[1], 0);
}

/// A change in another process: a call that began `MAX_AGE` after it was acknowledged finds nothing older.
#[test]
fn nothing_older_than_a_change_elsewhere_is_found_from_max_age_on() {
    let writer: [Step; 2] = [|world| world.committed = true, |world| world.acknowledged = world.now];
    let begin: Step = |world| world.begun = world.now;
    let read: Step = |world| world.saw = world.committed;
    let note: Step = |world| {
        if world.saw {
            world.coherence.note(SLOT);
        }
    };
    let finish: Step = |world| world.coherence.note_poll(Moment(world.begun));
    let load: Step = |world| world.cached = Some((world.loading[0].0, world.committed));
    let loader = [first()[0], load];
    let of = |tail: &[Step]| {
        in_every_order(&[&writer, tail, &loader, &READER], |world| {
            let found = world.found.filter(|_| world.fresh);
            found.map(|(_, new)| new || !world.is_bound(MAX_AGE))
        })
    };
    let [hits, stale] = of(&[begin, read, note, finish, begin, read, note, finish]);
    assert!(hits > 1_000 && stale == 0, "{hits} hits, {stale} of them stale");
    // The test sees it where a poll counts from its end, or before what it saw is noted.
    let late: Step = |world| world.coherence.note_poll(Moment(world.now));
    assert_ne!(of(&[begin, read, note, late, begin, read])[1], 0);
    assert_ne!(of(&[begin, read, finish, note, begin, read, finish])[1], 0);
}

#[test]
fn before_the_first_poll_and_long_after_the_last_nothing_is_used() {
    let coherence = Coherence::default();
    let (slot, stamp) = (coherence.slot("a", "b"), coherence.stamp());
    let hour = Duration::from_hours(1);
    assert!(!coherence.admits(slot, stamp, hour));
    coherence.note_poll(Moment::now());
    assert!(coherence.admits(slot, stamp, hour));
    let later = Moment(Moment::now().0 + 3_600_000_000_000);
    assert!(!coherence.is_followed(later, hour));
    coherence.note_everyone();
    assert!(!coherence.admits(slot, stamp, hour));
    assert!(coherence.admits(slot, coherence.stamp(), hour));
}

#[test]
fn what_strangers_can_cause_empties_nobodys_cache() {
    let coherence = Coherence::default();
    let (slot, stamp) = (coherence.slot("a", "b"), coherence.stamp());
    let unchanged = || coherence.is_unchanged(slot, stamp);
    for action in [Action::LoginRefused, Action::PasswordRefused, Action::SessionCreated, Action::CodeCreated]
    {
        coherence.note_event("a", "b", Some(action));
        assert!(unchanged(), "{action:?}");
    }
    // Of another namespace, in another slot: one in 65,536 tries would fail by chance, none of eight in a row.
    assert!((0..8).any(|n| {
        coherence.note_event(&format!("a{n}"), "b", Some(Action::UserUpdated));
        unchanged()
    }));
    let stamp = coherence.stamp();
    coherence.note_event("a", "b", None);
    assert!(!coherence.is_unchanged(slot, stamp), "of a newer program");
}
