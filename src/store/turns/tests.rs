use super::*;

const MILLI: Duration = Duration::from_millis(1);

const ONE: TurnLimits = TurnLimits { most: 1, slow: 1 };

/// The calls of a tenant's key: `tenant`, or `tenant/key`.
fn flow(name: &str) -> Flow {
    let (namespace, key) = name.split_once('/').unwrap_or((name, "key"));
    Flow { namespace: namespace.into(), key: key.into() }
}

/// Connections of which a namespace has `most`, and a clock that moves when it is told to.
struct World {
    turns: Arc<Turns>,
    now: Instant,
    waiting: Vec<(String, oneshot::Receiver<Permit>)>,
}

impl World {
    fn new(connections: usize, most: usize) -> Self {
        let turns = Arc::new(Turns::new(connections, TurnLimits { most, slow: 1 }));
        Self { turns, now: Instant::now(), waiting: Vec::new() }
    }

    /// Takes a permit, or waits.
    fn enter(&mut self, name: &str) -> Option<Permit> {
        match self.turns.enter(&flow(name), self.now) {
            Ok(permit) => Some(permit),
            Err(waiter) => {
                self.waiting.push((name.to_owned(), waiter));
                None
            }
        }
    }

    /// Gives a permit back after a time, and tells who has it then.
    fn pass(&mut self, permit: Permit, span: Duration) -> Option<(String, Permit)> {
        self.now += span;
        self.turns.release(&permit, self.now);
        std::mem::forget(permit);
        let served = self.waiting.iter_mut().enumerate().find_map(|(at, (_, waiter))| {
            let permit = waiter.try_recv().ok()?;
            Some((at, permit))
        });
        served.map(|(at, permit)| (self.waiting.remove(at).0, permit))
    }

    fn free(&self) -> usize {
        self.turns.lock().free.len()
    }
}

#[test]
fn a_free_connection_is_taken_at_once_and_given_back() {
    let mut world = World::new(2, 1);
    let permit = world.enter("one").unwrap();
    assert_eq!((permit.connection(), world.free()), (0, 1));
    assert!(world.pass(permit, MILLI).is_none());
    assert_eq!(
        (world.free(), world.enter("one").unwrap().connection()),
        (2, 0),
        "the one that was used last"
    );
}

/// (H4)
#[test]
fn one_namespace_never_has_all_connections() {
    let mut world = World::new(4, 3);
    let permits: Vec<Permit> = (0..4).filter_map(|key| world.enter(&format!("flood/{key}"))).collect();
    assert_eq!((permits.len(), world.waiting.len(), world.free()), (3, 1, 1));
    assert!(world.enter("other").is_some());
}

/// (H4)
#[test]
fn a_namespace_whose_statements_are_short_does_not_wait_behind_one_whose_are_long() {
    let mut world = World::new(1, 1);
    let mut holder = ("long".to_owned(), world.enter("long").unwrap());
    for name in ["long", "long", "short", "short", "short"] {
        assert!(world.enter(name).is_none());
    }
    let mut order = Vec::new();
    while let Some(next) = world.pass(holder.1, if holder.0 == "long" { 300 * MILLI } else { MILLI }) {
        order.push(next.0.clone());
        holder = next;
    }
    assert_eq!(order, ["short", "short", "short", "long", "long"]);
}

#[test]
fn namespaces_get_equal_time() {
    let mut world = World::new(1, 1);
    for _ in 0..40 {
        world.enter("long").into_iter().for_each(std::mem::forget);
        world.enter("short");
    }
    let (mut holder, mut had) =
        (("long".to_owned(), world.turns.permit(&"long".into(), 0, world.now)), [0; 2]);
    for _ in 0..44 {
        let span = if holder.0 == "long" { 10 } else { 1 };
        had[usize::from(holder.0 == "long")] += span;
        holder = world.pass(holder.1, span * MILLI).unwrap();
    }
    assert!(had[0].abs_diff(had[1]) <= 10, "{had:?}");
    std::mem::forget(holder);
}

/// (H4)
#[test]
fn a_slow_namespace_has_fewer_connections_while_others_are_there() {
    let mut world = World::new(4, 3);
    let permits: Vec<Permit> = (0..3).filter_map(|_| world.enter("slow")).collect();
    for _ in 0..7 {
        assert!(world.enter("slow").is_none());
    }
    let mut alone = Vec::new();
    for permit in permits {
        alone.extend(world.pass(permit, 100 * MILLI));
    }
    assert_eq!(alone.len(), 3, "it is alone");
    let other = world.enter("other").unwrap();
    assert!(world.pass(other, Duration::ZERO).is_none());
    for (_, permit) in alone.drain(..2) {
        assert!(world.pass(permit, MILLI).is_none(), "the other was there a moment ago");
    }
    let (_, permit) = alone.remove(0);
    let (_, permit) = world.pass(permit, MILLI).unwrap();
    assert_eq!(world.free(), 3, "it has one");
    let _next = world.pass(permit, SHARED_WINDOW).unwrap();
    assert_eq!(world.free(), 1, "it is alone again");
}

#[test]
fn where_all_are_slow_none_has_fewer_connections() {
    let mut world = World::new(4, 3);
    for _ in 0..30 {
        for name in ["one", "two"] {
            let permit = world.enter(name).unwrap();
            assert!(world.pass(permit, 20 * MILLI).is_none());
        }
    }
    let held: Vec<Permit> = (0..3).filter_map(|_| world.enter("one")).collect();
    assert_eq!(held.len(), 3, "it is no slower than the other");
}

#[test]
fn keys_of_one_namespace_take_turns() {
    let mut world = World::new(1, 1);
    let mut permit = world.enter("tenant/flood").unwrap();
    for name in ["tenant/flood", "tenant/flood", "tenant/flood", "tenant/other"] {
        assert!(world.enter(name).is_none());
    }
    let mut order = Vec::new();
    while let Some((name, next)) = world.pass(permit, MILLI) {
        order.push(name);
        permit = next;
    }
    assert_eq!(order, ["tenant/flood", "tenant/other", "tenant/flood", "tenant/flood"]);
}

#[test]
fn what_a_namespace_did_before_counts_for_a_second_at_most() {
    let mut world = World::new(2, 2);
    let (long, _short) = (world.enter("long").unwrap(), world.enter("short").unwrap());
    world.enter("short");
    world.turns.release(&long, world.now + Duration::from_mins(1));
    std::mem::forget(long);
    let used = world.turns.lock().tenants[&Arc::from("long")].used;
    assert_eq!(used, MAX_AHEAD);
}

#[tokio::test]
async fn a_waiter_that_leaves_gives_up_its_turn() {
    let turns = Arc::new(Turns::new(1, ONE));
    let (one, two) = (flow("one"), flow("two"));
    let permit = turns.acquire(&one).await.unwrap();
    let (first, second) = (turns.acquire(&one), turns.acquire(&two));
    let (mut first, mut second) = (Box::pin(first), Box::pin(second));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    drop(permit);
    let second = second.await.unwrap();
    // One that leaves after it was served, and before it has seen it, hands it on.
    let mut third = Box::pin(turns.acquire(&one));
    assert!(futures_util::poll!(&mut third).is_pending());
    drop(second);
    drop(third);
    assert!(turns.acquire(&two).await.is_ok());
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let turns = Arc::new(Turns::new(1, ONE));
    let permit = turns.acquire(&flow("one")).await.unwrap();
    let refused = turns.acquire_within(&flow("one"), MILLI).await;
    assert!(matches!(refused, Err(Error::DatabaseUnavailable(_))));
    drop(permit);
    assert!(turns.acquire(&flow("one")).await.is_ok());
}

#[test]
fn namespaces_that_are_done_are_forgotten() {
    let turns = Arc::new(Turns::new(2, ONE));
    for number in 0..10_000 {
        drop(turns.enter(&flow(&format!("tenant{number}")), Instant::now()).unwrap());
    }
    assert!(turns.lock().tenants.len() < 200, "{}", turns.lock().tenants.len());
}

/// A flood whose callers leave must not pile up.
#[test]
fn those_who_left_take_no_room() {
    let turns = Arc::new(Turns::new(1, ONE));
    let _permit = turns.enter(&flow("one"), Instant::now()).unwrap();
    for _ in 0..10_000 {
        drop(turns.enter(&flow("one"), Instant::now()));
    }
    let waiters: usize =
        turns.lock().tenants[&Arc::from("one")].queues.iter().map(|line| line.waiters.len()).sum();
    assert!(waiters <= 2 * CLEANUP_THRESHOLD, "{waiters}");
}
