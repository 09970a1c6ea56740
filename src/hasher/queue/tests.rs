use bcrypt_lanes::Variant;

use super::*;

/// A round takes 1 µs in any batch; usual jobs have 1,000 rounds.
fn queue(workers: usize, lanes: usize) -> Queue {
    Queue::new(workers, lanes, 1_000, [1_000.0; MAX_LANES + 1])
}

type Answers = Vec<oneshot::Receiver<Outcome>>;

/// The calls of a tenant's key: `tenant`, or `tenant/key`.
fn flow(name: &str) -> Flow {
    let (namespace, key) = name.split_once('/').unwrap_or((name, "key"));
    Flow { namespace: namespace.into(), key: key.into() }
}

fn add(queue: &mut Queue, name: &str, task: Task, answers: &mut Answers) {
    let (reply, answer) = oneshot::channel();
    answers.push(answer);
    queue.waiting.reserve(&flow(name));
    queue.enqueue(&flow(name), Job::new(task, reply));
}

/// A job of 2^`cost` rounds that its salt tells from others.
fn bcrypt(cost: u32, mark: u8) -> Task {
    Task::Bcrypt { cost, salt: [mark; 16], key: BcryptKey::new(b"", Variant::B) }
}

fn other(rounds: u64, large: bool) -> Task {
    Task::Other { scheme: Scheme::Ldap, rounds, large, check: Box::new(|| true) }
}

fn marks(batch: &[Job]) -> Vec<u8> {
    let mark = |job: &Job| match job.task {
        Task::Bcrypt { salt, .. } => salt[0],
        Task::Other { .. } => 255,
    };
    batch.iter().map(mark).collect()
}

#[test]
fn a_batch_has_jobs_of_one_cost_and_no_more_than_the_lanes() {
    let (mut queue, mut answers, now) = (queue(1, 3), Vec::new(), Instant::now());
    for (cost, mark) in [(5, 1), (6, 2), (5, 3), (5, 4), (5, 5), (6, 6)] {
        add(&mut queue, "one", bcrypt(cost, mark), &mut answers);
    }
    add(&mut queue, "one", other(9, false), &mut answers);
    let batches: Vec<Vec<u8>> = (0..4).map(|_| marks(&queue.take(0, now))).collect();
    assert_eq!(batches, [vec![1, 3, 4], vec![2, 6], vec![5], vec![255]]);
    assert!(queue.take(0, now).is_empty());
}

/// Large checks once waited for each other in their threads, where no other job could run meanwhile.
#[test]
fn large_checks_run_one_at_a_time_and_hold_back_nothing_else() {
    let (mut queue, mut answers, now) = (queue(3, 2), Vec::new(), Instant::now());
    for task in [other(9, true), other(9, true), bcrypt(5, 1), other(9, false)] {
        add(&mut queue, "one", task, &mut answers);
    }
    assert!(queue.take(0, now)[0].is_large());
    assert_eq!(marks(&queue.take(1, now)), [1]);
    assert!(!queue.take(2, now)[0].is_large());
    queue.done(1, 1, 32, now);
    assert!(queue.take(1, now).is_empty(), "the second large one waits");
    queue.done(0, 1, 9, now);
    assert!(queue.take(1, now)[0].is_large());
}

#[test]
fn a_line_of_another_cost_keeps_its_turn() {
    let (mut queue, mut answers, now) = (queue(1, 2), Vec::new(), Instant::now());
    for mark in 0..6 {
        add(&mut queue, "one", bcrypt(5, mark), &mut answers);
        add(&mut queue, "two", bcrypt(5, 10 + mark), &mut answers);
    }
    add(&mut queue, "other", bcrypt(4, 100), &mut answers);
    let batches: Vec<Vec<u8>> = (0..2).map(|_| marks(&queue.take(0, now))).collect();
    assert_eq!(batches, [vec![0, 10], vec![100]]);
}

#[test]
fn a_slow_while_does_not_keep_out_whoever_has_a_deadline() {
    let (mut queue, mut answers, begun) = (queue(1, 2), Vec::new(), Instant::now());
    let who = flow("one");
    for _ in 0..20 {
        add(&mut queue, "one", bcrypt(10, 1), &mut answers);
        queue.take(0, begun);
        queue.done(0, 1, 1 << 10, begun + Duration::from_mins(5));
    }
    let soon = Some(begun + Duration::from_secs(1));
    assert_eq!(queue.excess_wait(&who, Duration::from_secs(5), soon, begun), Duration::ZERO);
    let too_soon = Some(begun + Duration::from_micros(500));
    assert!(queue.excess_wait(&who, Duration::from_secs(5), too_soon, begun) > Duration::ZERO);
}

#[test]
fn callers_take_turns() {
    let (mut queue, mut answers, now) = (queue(1, 2), Vec::new(), Instant::now());
    for mark in 0..6 {
        add(&mut queue, "flood", bcrypt(4, mark), &mut answers);
    }
    add(&mut queue, "other", bcrypt(4, 100), &mut answers);
    add(&mut queue, "third", bcrypt(4, 200), &mut answers);
    let batches: Vec<Vec<u8>> = (0..4).map(|_| marks(&queue.take(0, now))).collect();
    assert_eq!(batches, [vec![0, 100], vec![200, 1], vec![2, 3], vec![4, 5]]);
}

#[test]
fn one_that_floods_waits_behind_itself() {
    let (mut queue, mut answers, now) = (queue(1, 1), Vec::new(), Instant::now());
    assert_eq!(queue.wait(&flow("flood"), now), Duration::ZERO);
    for _ in 0..100 {
        add(&mut queue, "flood", bcrypt(10, 0), &mut answers);
    }
    queue.take(0, now);
    let waits =
        [queue.wait(&flow("flood"), now), queue.wait(&flow("other"), now)].map(|wait| wait.as_micros());
    assert_eq!(waits, [100 * 1_024, 1_024], "one runs, so the next turn is another's");
}

#[test]
fn a_kept_place_counts_until_it_is_given_up() {
    let (mut queue, now) = (queue(1, 1), Instant::now());
    let who = flow("one");
    queue.waiting.reserve(&who);
    queue.waiting.reserve(&who);
    assert_eq!(queue.wait(&flow("one"), now), Duration::from_millis(2));
    assert!(queue.take(0, now).is_empty(), "there is no job yet");
    queue.waiting.release(&who);
    queue.waiting.release(&who);
    assert_eq!((queue.wait(&flow("one"), now), queue.waiting.len()), (Duration::ZERO, 0));
}

#[test]
fn those_who_left_are_not_served() {
    let (mut queue, mut answers, now) = (queue(1, 4), Vec::new(), Instant::now());
    for mark in 0..4 {
        add(&mut queue, "one", bcrypt(4, mark), &mut answers);
    }
    answers.remove(1);
    answers.remove(1);
    assert_eq!(marks(&queue.take(0, now)), [0, 3]);
    add(&mut queue, "one", bcrypt(4, 9), &mut answers);
    answers.clear();
    queue.waiting.drop_abandoned();
    assert_eq!(queue.waiting.len(), 0);
}

#[test]
fn a_machine_that_slows_down_is_seen_before_its_batch_ends() {
    let (mut queue, mut answers, now) = (queue(1, 1), Vec::new(), Instant::now());
    for _ in 0..3 {
        add(&mut queue, "one", bcrypt(10, 0), &mut answers);
    }
    queue.take(0, now);
    let expected = queue.wait(&flow("one"), now);
    let later = queue.wait(&flow("one"), now + Duration::from_micros(10 * 1_024));
    assert!(later > 5 * expected, "{expected:?}, {later:?}");
    queue.done(0, 1, 1_024, now + Duration::from_micros(9 * 1_024));
    assert!((queue.speed[1] - 2_000.0).abs() < 1.0, "an eighth of nine times as slow: {}", queue.speed[1]);
}

/// (H5)
#[test]
fn keys_of_one_namespace_share_one_turn() {
    let (mut queue, mut answers, now) = (queue(1, 1), Vec::new(), Instant::now());
    for key in 0..50 {
        add(&mut queue, &format!("flood/{key}"), bcrypt(10, key), &mut answers);
    }
    queue.take(0, now);
    add(&mut queue, "other", bcrypt(10, 100), &mut answers);
    assert_eq!(
        queue.wait(&flow("flood/7"), now).as_micros(),
        (1 + 1 + 49) * 1_024,
        "its keys, and the other"
    );
    assert_eq!(queue.wait(&flow("third"), now).as_micros(), 2 * 1_024, "one runs, and the other came first");
    let order: Vec<u8> = (0..4).flat_map(|_| marks(&queue.take(0, now))).collect();
    assert_eq!(order, [100, 1, 2, 3]);
}

#[test]
fn keys_of_one_namespace_take_turns_too() {
    let (mut queue, mut answers, now) = (queue(1, 1), Vec::new(), Instant::now());
    for mark in 0..4 {
        add(&mut queue, "tenant/flood", bcrypt(10, mark), &mut answers);
    }
    add(&mut queue, "tenant/other", bcrypt(10, 100), &mut answers);
    let order: Vec<u8> = (0..5).flat_map(|_| marks(&queue.take(0, now))).collect();
    assert_eq!(order, [0, 100, 1, 2, 3]);
}

/// (M5)
#[test]
fn a_tenant_with_dear_hashes_gets_as_many_rounds_as_one_with_cheap_ones() {
    let (mut queue, mut answers, now) = (queue(1, 1), Vec::new(), Instant::now());
    for mark in 0..30 {
        add(&mut queue, "dear", bcrypt(13, 100 + mark), &mut answers);
        add(&mut queue, "usual", bcrypt(10, mark), &mut answers);
    }
    let order: Vec<u8> = (0..18).flat_map(|_| marks(&queue.take(0, now))).collect();
    let dear = order.iter().filter(|mark| **mark >= 100).count();
    assert_eq!(dear, 2, "eight rounds for one: {order:?}");
}

/// (M5)
#[test]
fn dear_hashes_of_another_tenant_delay_by_one_batch_and_are_foreseen() {
    let (mut queue, mut answers, now) = (queue(1, 4), Vec::new(), Instant::now());
    for mark in 0..30 {
        add(&mut queue, "dear", bcrypt(13, mark), &mut answers);
    }
    queue.take(0, now);
    let wait = queue.wait(&flow("usual"), now);
    assert_eq!(wait.as_micros(), 8_192, "the batch that runs");
    add(&mut queue, "usual", bcrypt(10, 100), &mut answers);
    assert_eq!(marks(&queue.take(0, now)), [100]);
}

#[test]
fn a_tenant_that_was_given_more_does_not_start_level_after_leaving_for_a_moment() {
    let (mut queue, mut answers, now) = (queue(1, 1), Vec::new(), Instant::now());
    for mark in 0..3 {
        add(&mut queue, "usual", bcrypt(10, mark), &mut answers);
    }
    add(&mut queue, "dear", bcrypt(12, 100), &mut answers);
    queue.take(0, now);
    assert_eq!(marks(&queue.take(0, now)), [100]);
    add(&mut queue, "dear", bcrypt(12, 101), &mut answers);
    let order: Vec<u8> = (0..3).flat_map(|_| marks(&queue.take(0, now))).collect();
    assert_eq!(order, [1, 2, 101]);
}

#[test]
fn a_rest_is_not_made_up_for() {
    let (mut queue, mut answers, now) = (queue(1, 1), Vec::new(), Instant::now());
    for mark in 0..20 {
        add(&mut queue, "busy", bcrypt(10, mark), &mut answers);
    }
    for _ in 0..10 {
        queue.take(0, now);
    }
    for mark in 100..105 {
        add(&mut queue, "rested", bcrypt(10, mark), &mut answers);
    }
    let order: Vec<u8> = (0..6).flat_map(|_| marks(&queue.take(0, now))).collect();
    assert_eq!(order, [100, 10, 101, 11, 102, 12]);
}
