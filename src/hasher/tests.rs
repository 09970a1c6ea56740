use super::*;

const SETUP: HasherConfig = HasherConfig {
    cost: 4,
    workers: 2,
    lanes: Some(3),
    max_wait: Duration::from_mins(1),
    min_cpu_percent: 100,
};

fn password(text: &str) -> Password {
    Password::attempt(text.to_owned())
}

fn one() -> Flow {
    flow("one", "key")
}

fn flow(namespace: &str, key: &str) -> Flow {
    Flow { namespace: namespace.into(), key: key.into() }
}

impl Hasher {
    async fn hash(&self, text: &str) -> Result<PasswordHash> {
        self.admit(&one(), None)?.hash(&password(text)).await
    }

    async fn verify(&self, text: &str, hash: Option<&PasswordHash>) -> bool {
        self.admit(&one(), None).unwrap().verify(&password(text), hash, None).await.unwrap()
    }
}

/// (12, R3, R4)
#[tokio::test]
async fn every_byte_counts_on_both_sides_of_72() {
    let hasher = Hasher::new(SETUP).unwrap();
    for length in [8, 48, 49, 71, 72, 73, 100, 500] {
        let right = "x".repeat(length);
        let hash = hasher.hash(&right).await.unwrap();
        let form = if length <= 72 { "$2b$04$" } else { "$bcrypt-sha256$v=2,t=2b,r=4$" };
        assert!(hash.as_str().starts_with(form), "{length}");
        assert!(hasher.verify(&right, Some(&hash)).await, "{length}");
        let last_wrong = format!("{}y", "x".repeat(length - 1));
        for wrong in [&last_wrong, &format!("{right}x"), &right[1..], ""] {
            assert!(!hasher.verify(wrong, Some(&hash)).await, "{length}");
        }
    }
}

/// (R4)
#[tokio::test]
async fn every_byte_counts_with_a_pepper_and_none_without_its_key() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("1 {}=", "A".repeat(43))).unwrap();
    let hasher = Hasher::new(SETUP).unwrap().with_peppers(Peppers::open(Some(file.path())).unwrap());
    for length in [8, 72, 73, 500] {
        let right = "x".repeat(length);
        let hash = hasher.hash(&right).await.unwrap();
        assert!(hash.as_str().starts_with("$bcrypt-hmac-sha384$v=1,k=1,r=4$"), "{length}");
        assert!(hasher.is_current(&hash) && hasher.verify(&right, Some(&hash)).await, "{length}");
        assert!(!hasher.verify(&format!("{}y", &right[1..]), Some(&hash)).await, "{length}");
        std::fs::write(&file, format!("2 {}A=", "B".repeat(42))).unwrap();
        hasher.peppers().reload(Some(file.path())).unwrap();
        assert!(!hasher.verify(&right, Some(&hash)).await && !hasher.is_current(&hash), "{length}");
        std::fs::write(&file, format!("1 {}=", "A".repeat(43))).unwrap();
        hasher.peppers().reload(Some(file.path())).unwrap();
    }
}

#[tokio::test]
async fn no_password_is_right_for_an_unknown_user() {
    let hasher = Hasher::new(SETUP).unwrap();
    assert!(!hasher.verify("password", None).await);
    assert!(!hasher.verify("", None).await);
    let dummy_hash = hasher.hash("password").await.unwrap();
    let turn = hasher.admit(&one(), None).unwrap();
    let matches = turn.verify(&password("password"), None, Some(&dummy_hash)).await.unwrap();
    assert!(!matches, "the password of the dummy hash is not right either");
}

#[tokio::test]
async fn equal_passwords_have_different_hashes() {
    let hasher = Hasher::new(SETUP).unwrap();
    assert_ne!(hasher.hash("password").await.unwrap(), hasher.hash("password").await.unwrap());
}

#[tokio::test]
async fn jobs_that_would_be_late_are_refused_at_once_and_the_rest_is_done() {
    let setup = HasherConfig { cost: 8, workers: 1, max_wait: Duration::from_millis(30), ..SETUP };
    let hasher = Hasher::new(setup).unwrap();
    let many = (0..200).map(|_| {
        let hasher = hasher.clone();
        tokio::spawn(async move { hasher.hash("password").await })
    });
    let (mut done, mut refused) = (0, 0);
    for job in many.collect::<Vec<_>>() {
        match job.await.unwrap() {
            Ok(_) => done += 1,
            Err(Error::HasherBusy { retry_after }) => {
                assert!(retry_after > Duration::ZERO);
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
}

#[tokio::test]
async fn a_job_that_would_miss_the_deadline_is_refused() {
    let hasher = Hasher::new(HasherConfig { cost: 10, ..SETUP }).unwrap();
    let refused = |deadline| hasher.admit(&one(), Some(deadline)).is_err();
    assert!(refused(Instant::now()));
    assert!(refused(Instant::now() + Duration::from_micros(100)));
    assert!(!refused(Instant::now() + Duration::from_mins(1)));
}

#[tokio::test]
async fn one_that_floods_does_not_push_out_the_others() {
    let hasher = Hasher::new(HasherConfig { workers: 1, max_wait: Duration::from_secs(1), ..SETUP }).unwrap();
    let mut turns = Vec::new();
    while let Ok(turn) = hasher.admit(&one(), None) {
        turns.push(turn);
    }
    hasher.admit(&flow("other", "key"), None).unwrap().hash(&password("password")).await.unwrap();
    turns.clear();
    assert_eq!(hasher.pool.waiting(), 0, "what is not used is given up");
}

/// (15)
#[tokio::test]
async fn cancelled_callers_release_their_reservation() {
    let setup = HasherConfig { cost: 10, workers: 1, max_wait: Duration::from_mins(10), ..SETUP };
    let hasher = Hasher::new(setup).unwrap();
    for _ in 0..2_000 {
        let abandoned = std::pin::pin!(hasher.hash("password"));
        assert!(futures_util::poll!(abandoned).is_pending());
    }
    // Two thousand of them would take minutes; the first may have begun.
    hasher.hash("password").await.unwrap();
    assert_eq!(hasher.pool.waiting(), 0);
    assert!(hasher.work().done < 20, "{:?}", hasher.work());
}
