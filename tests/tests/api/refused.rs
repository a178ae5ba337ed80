//! What is refused, and that nothing comes of it: the daemon answers and filters afterwards.

use std::{
    fs,
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use detector_tests::{
    api::{read, trickle},
    daemon::Site,
    process::{PATIENCE, wait_until},
    stage::{Stage, policy},
};
use detector_user::{
    api::limits::{
        BODY_BYTES_MAX, CHANGES_BURST, CONNECTIONS_OF_ONE_MAX, FOLLOWERS_OF_ONE_MAX, HEAD_BYTES_MAX,
        INCIDENT_BYTES_MAX, POLICY_BYTES_MAX, VERSIONS_MAX,
    },
    kernel::pins::Pins,
};
use serde_json::{Value, json};

use crate::{LIMIT, api, assert_filters, request};

#[test]
fn malformed_and_oversized_requests_are_refused_without_harm() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let api = api(&site);
    let json = "application/json";

    let too_many_versions = format!("/v1/history?limit={}", VERSIONS_MAX + 1);
    for (path, status) in [
        ("/", 404),
        ("/v1/nothing", 404),
        ("/v1/explain/nobody", 400),
        ("/v1/explain/1.2.3.4/5", 404),
        ("/v1/sources?rows=0", 422),
        ("/v1/sources?rows=many", 400),
        ("/v1/sources?rows=1&color=red", 400),
        ("/v1/sources?interval_s=11", 422),
        ("/v1/events?kind=nothing", 422),
        (&too_many_versions, 422),
        ("/v1/apply", 405),
    ] {
        let answer = api.get(path)?;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body["error"].is_string() && answer.body["exit_code"] == 2, "{}", answer.body);
    }
    let deep = [b"{\"text\":".as_slice(), &[b'['; 50_000]].concat();
    let bodies: [(&str, &[u8], u16); 13] = [
        (json, b"", 400),
        (json, b"{\"text\":", 400),
        (json, &deep, 422),
        (json, b"\xff\xfe", 400),
        (json, b"[]", 422),
        (json, b"{}", 422),
        (json, b"{\"text\":\"version = 1\",\"sudo\":true}", 422),
        (json, b"{\"text\":\"version = 1\",\"confirm_s\":0}", 422),
        (json, b"{\"text\":\"version = 1\",\"confirm_s\":86401}", 422),
        (json, b"{\"text\":\"version = 1\",\"reason\":\" \"}", 422),
        (json, b"{\"text\":\"version = 1\",\"reason\":\"a\\nb\"}", 422),
        (json, b"{\"text\":\"version = 1\",\"name\":\"a\\nb\"}", 422),
        ("text/plain", b"{\"text\":\"version = 1\"}", 415),
    ];
    for (kind, body, status) in bodies {
        let answer = api.post_as("/v1/apply", kind, body)?;
        assert_eq!(
            answer.status,
            status,
            "{}: {}",
            String::from_utf8_lossy(&body[..body.len().min(50)]),
            answer.body
        );
        assert!(answer.body["error"].is_string(), "{}", answer.body);
    }
    let invalid = api.post("/v1/apply", Some(&json!({ "text": "version = 1\nfast = true\n" })))?;
    assert_eq!(
        (invalid.status, &invalid.body["diagnostics"][0]["line"]),
        (422, &json!(2)),
        "{}",
        invalid.body
    );
    let broad = policy(LIMIT) + "[[rule]]\nname = \"all\"\nsource = [\"0.0.0.0/0\"]\naction = \"drop\"\n";
    let broad = api.post("/v1/apply", Some(&json!({ "text": broad })))?;
    assert!(broad.status == 422 && broad.body["error"].to_string().contains("force"), "{}", broad.body);

    for (path, bytes_max) in [
        ("/v1/check", POLICY_BYTES_MAX),
        ("/v1/incidents", INCIDENT_BYTES_MAX),
        ("/v1/rollback", BODY_BYTES_MAX),
    ] {
        let answer = api.post_as(path, json, &vec![b' '; bytes_max + 1])?;
        assert_eq!(answer.status, 413, "{path}: {}", answer.body);
        let bound = format!("{} KiB", bytes_max >> 10);
        assert!(answer.body["error"].to_string().contains(&bound), "{path}: {}", answer.body);
    }
    let head =
        format!("GET /v1/version HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(4 * HEAD_BYTES_MAX));
    assert_eq!(api.say(head.as_bytes())?.status, 431);
    for nonsense in ["\u{16}\u{3}\u{1}\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n"]
    {
        assert_eq!(api.say(nonsense.as_bytes())?.status, 400, "{nonsense:?}");
    }
    let two_lengths =
        "POST /v1/confirm HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx";
    assert_eq!(api.say(two_lengths.as_bytes())?.status, 400);
    // Nobody reads the body of a request that takes none.
    let unread = api.post_as("/v1/confirm", json, &vec![b'x'; 2 * BODY_BYTES_MAX])?;
    assert_eq!(unread.status, 409);

    assert_eq!(site.status()?.1["policy"]["epoch"], 1, "nothing was applied");
    assert_filters(&stage, &site)
}

#[test]
fn slow_requests_are_ended() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&["edge0"], &["--api-patience-ms", "300"])?;
    let api = api(&site);
    let heads =
        ["", "GET /v1/status HTTP/1.1\r\nhost: ", "POST /v1/apply HTTP/1.1\r\ncontent-length: 10\r\nx: "];
    for head in heads {
        let mut stream = api.connect()?;
        stream.write_all(head.as_bytes()).context("sending the beginning")?;
        trickle(&mut stream, 1000).with_context(|| format!("after {head:?}"))?;
    }
    let mut stream = api.connect()?;
    stream
        .write_all(b"POST /v1/apply HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{")
        .context("sending a part of a body")?;
    let answer = read(&mut stream)?;
    assert_eq!(answer.status, 408, "{}", answer.body);
    assert_filters(&stage, &site)
}

#[test]
fn who_is_late_is_told_whether_the_change_was_begun() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    // A request has six times that, 3 s; who waits for the policy's lock waits for 10 s.
    let daemon = site.start(&["edge0"], &["--api-patience-ms", "500"])?;
    let api = api(&site);
    let lock = Pins::new(site.pins()).lock_policy()?;
    let text = policy(LIMIT) + "# another\n";
    let ask = |name: &str| api.post("/v1/apply", Some(&json!({ "text": text, "name": name })));
    let answers = thread::scope(|scope| -> Result<_> {
        // One has begun and waits for the lock, the other waits for its place.
        let asked = [scope.spawn(|| ask("one.toml")), scope.spawn(|| ask("other.toml"))];
        let answers = asked.map(|asked| asked.join().map_err(|_| anyhow!("a thread panicked")));
        let [one, other] = answers;
        Ok([one??, other??])
    })?;
    assert_eq!(answers.each_ref().map(|answer| answer.status), [503, 503], "{answers:?}");
    let told = answers.map(|answer| answer.body["error"].to_string());
    let count = |part: &str| told.iter().filter(|told| told.contains(part)).count();
    assert_eq!((count("comes to its end"), count("no change was begun: try again")), (1, 1), "{told:?}");
    drop(lock);

    wait_until("what was begun comes to its end", PATIENCE, || {
        Ok((site.status()?.1["policy"]["epoch"] == 2).then_some(()))
    })?;
    let entries = || -> Result<Vec<_>> {
        let audit = api.get("/v1/audit")?.body;
        let applied = |entry: &&Value| entry["action"] == "apply" && entry["origin"] == "api";
        Ok(audit["entries"].as_array().context("entries")?.iter().filter(applied).cloned().collect())
    };
    let entries = wait_until("both are recorded", PATIENCE, || {
        Ok(Some(entries()?).filter(|entries| entries.len() == 2))
    })?;
    let refused = entries.iter().filter(|entry| entry["result"].to_string().contains("no change was begun"));
    assert_eq!(refused.count(), 1, "{entries:?}");
    wait_until("both are logged", PATIENCE, || {
        let log = daemon.log();
        let count = |part: &str| log.lines().filter(|line| line.contains(part)).count();
        let counts = (count("refused over the API"), count("changed over the API"));
        Ok((counts == (1, 1)).then_some(()))
    })
}

#[test]
fn nobody_waits_on_the_way_out_or_for_a_look_that_others_keep_open() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let api = api(&site);
    let trial = json!({ "text": policy(LIMIT) + "# on trial\n", "confirm_s": 3600 });
    assert_eq!(api.post("/v1/apply", Some(&trial))?.status, 200);
    let mut uploads = Vec::new();
    for path in ["apply", "incidents", "check"] {
        let head = format!(
            "POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
        );
        let mut stream = api.connect()?;
        stream.write_all(head.as_bytes()).context("sending a part of a body")?;
        uploads.push(stream);
    }
    // Whoever has gone while a look was taken leaves nothing behind that keeps others from theirs.
    for _ in 0..200 {
        let mut stream = api.connect()?;
        stream
            .write_all(
                b"GET /v1/victims HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n",
            )
            .context("asking and going away")?;
    }
    wait_until("connections are taken again", PATIENCE, || {
        Ok((api.get("/v1/version")?.status == 200).then_some(()))
    })?;
    let began = Instant::now();
    let back = api.post("/v1/rollback", Some(&json!({})))?;
    assert_eq!((back.status, &back.body["taken_back"]), (200, &json!(2)), "{}", back.body);
    assert_eq!(api.get("/v1/status")?.status, 200);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}: before the uploads end", began.elapsed());
    assert_filters(&stage, &site)
}

#[test]
fn nobody_waits_on_the_way_out_for_a_look_at_the_traffic() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    // Nothing can be kept there, so every change that is guarded looks for 2 s.
    fs::write(site.run_directory(), "").context("making a file")?;
    let daemon = site.start(&["edge0"], &[])?;
    // A source that has sent, and does not any more.
    assert_filters(&stage, &site)?;
    let api = api(&site);
    let block =
        |target: &str| json!({ "action": "block", "targets": [target], "for_s": 3600, "reason": "x" });
    let mut known = block("203.0.113.1");
    known["force"] = json!(true);
    assert_eq!(api.post("/v1/incidents", Some(&known))?.status, 200);
    let trial = json!({ "text": policy(LIMIT) + "# on trial\n", "confirm_s": 3600, "force": true });
    assert_eq!(api.post("/v1/apply", Some(&trial))?.status, 200);
    assert!(!daemon.log().contains("to look at the traffic"), "{}", daemon.log());
    thread::scope(|scope| -> Result<()> {
        // The second waits for the first.
        let looking = ["198.18.0.0/25", "198.18.0.0/26"].map(|target| {
            let (api, block) = (&api, block(target));
            scope.spawn(move || api.post("/v1/incidents", Some(&block)))
        });
        wait_until("a change looks", PATIENCE, || {
            Ok(daemon.log().contains("the change waits 2 s to look at the traffic").then_some(()))
        })?;
        let confirmed = api.post("/v1/confirm", None)?;
        assert_eq!((confirmed.status, &confirmed.body["confirmed"]), (200, &json!(true)), "{confirmed:?}");
        let undone = api.post("/v1/undo", Some(&json!({ "ids": [1], "force": true })))?;
        assert_eq!(undone.status, 200, "{undone:?}");
        assert!(looking.iter().all(|looking| !looking.is_finished()), "they looked before");
        for looking in looking {
            let added = looking.join().map_err(|_| anyhow!("a thread panicked"))??;
            assert_eq!(added.status, 200, "{added:?}");
        }
        Ok(())
    })?;
    let rules = api.get("/v1/rules")?.body;
    assert_eq!(rules["incidents"].as_array().map(Vec::len), Some(2), "{rules}");
    Ok(())
}

#[test]
fn too_many_are_refused_and_find_room_later() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let daemon = site.start(&["edge0"], &[])?;
    let api = api(&site);

    let held: Vec<_> = (0..CONNECTIONS_OF_ONE_MAX).map(|_| api.connect()).collect::<Result<_>>()?;
    let refused = api.get("/v1/version")?;
    assert_eq!((refused.status, &refused.body["exit_code"]), (503, &json!(1)), "{}", refused.body);
    drop(held);
    wait_until("connections are taken again", PATIENCE, || {
        Ok((api.get("/v1/version")?.status == 200).then_some(()))
    })?;

    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS_OF_ONE_MAX {
        let mut stream = api.connect()?;
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").context("following")?;
        // Its head has come, so it follows.
        std::io::Read::read_exact(&mut stream, &mut [0; 12]).context("the head of an answer")?;
        followers.push(stream);
    }
    let refused = api.get("/v1/events")?;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(api.get("/v1/status")?.status, 200, "others are answered");
    drop(followers);

    let mut statuses = Vec::new();
    for _ in 0..=2 * CHANGES_BURST {
        statuses.push(api.post("/v1/confirm", None)?.status);
    }
    assert_eq!(statuses[0], 409, "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    wait_until("changes are taken again", PATIENCE, || {
        Ok((api.post("/v1/apply", Some(&request()))?.status == 200).then_some(()))
    })?;
    assert!(daemon.log().contains("too many changes"), "{}", daemon.log());
    assert_filters(&stage, &site)
}
