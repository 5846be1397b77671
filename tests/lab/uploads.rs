//! Directories and large files of the operator's computer: uploaded, cut off, continued, changed by the service, and replaced.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::command::Running;
use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, program, until};

const COMPOSE: &str = "
name: shop
services:
  web:
    image: vc-test:1
    command: [sleep, '900']
    volumes: ['./site:/data']
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 500ms}}
";

/// More than arrives before a client that is killed at once has ended.
const LARGE: usize = 200 << 20;
/// After so many bytes it is killed.
const CUT_AT: u64 = 8 << 20;

fn vc(lab: &Lab, words: &[&str]) -> Command {
    let mut command = Command::new(program("vc"));
    command.args(["--peer", &Lab::ip(1)]).args(words);
    lab.as_admin(&mut command);
    command
}

/// Writes bytes that no compression makes smaller.
fn write_noise(path: &Path, length: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..length / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    fs::write(path, words.collect::<Vec<u8>>()).unwrap();
}

fn sum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// Returns what a script prints in the container of the service, once there is one.
fn look(lab: &Lab, script: &str) -> String {
    let (text, _) = until("the service runs", DEADLINE, || {
        let all = lab.all_containers(&[1, 2]);
        let mut all = all.iter().flat_map(|(host, of)| of.iter().map(move |it| (*host, it)));
        let Some((host, container)) = all.find(|(_, it)| it.service() == "shop/web") else {
            return Err("no container".to_owned());
        };
        let output = lab.inside(host, container, &["sh", "-c", script]);
        if output.err.is_empty() { Ok(output.out) } else { Err(output.err) }
    });
    text.trim().to_owned()
}

#[test]
fn an_upload_that_was_cut_goes_on_what_services_write_stays_and_an_upload_again_can_be_taken_back()
{
    let lab = Lab::cluster(2);
    let file = lab.file("compose.yaml", COMPOSE);
    let site = Path::new(&file).with_file_name("site");
    fs::create_dir_all(site.join("pages")).unwrap();
    for number in 0..200 {
        fs::write(site.join(format!("pages/{number}")), number.to_string()).unwrap();
    }
    let large = site.join("pages/zz-large");
    write_noise(&large, LARGE);

    // The client is killed, and the node starts again.
    let mut command = vc(&lab, &["deploy", &file]);
    command.stderr(Stdio::null());
    let mut client = Running::start(command);
    let uploads = lab.files_of(1).join("node/volumes/.uploads/shop");
    let (volume, _) = until("a part has arrived", DEADLINE, || {
        // A directory has a hash in the name of its volume.
        let entry = fs::read_dir(&uploads).ok().and_then(|mut all| all.next()?.ok());
        let name = entry.map(|it| it.file_name().into_string().unwrap()).unwrap_or_default();
        let staged = uploads.join(&name).join("data/pages/zz-large");
        let length = fs::metadata(staged).map_or(0, |it| it.len());
        if length >= CUT_AT { Ok(name) } else { Err(length) }
    });
    let staged = uploads.join(&volume).join("data/pages/zz-large");
    let volume = format!("shop/{volume}");
    client.kill();
    lab.host("node-kill", 1);
    lab.node(1, &["run"]);
    lab.all_up(&[1, 2]);
    let arrived = fs::metadata(&staged).unwrap().len();
    assert!(arrived < LARGE as u64, "it was cut");
    assert!(lab.rows(1, &["volume", "ls"]).is_empty(), "what is not whole is no volume");

    // Meanwhile one file has changed, and one is gone.
    fs::write(site.join("pages/0"), "changed").unwrap();
    fs::remove_file(site.join("pages/1")).unwrap();
    let output = lab.vc(1, &["deploy", &file, "--wait"]);
    assert_eq!(output.code, Some(0), "{}", output.err);
    assert!(output.err.contains("goes on after"), "{}", output.err);
    let script = "cd /data/pages; cat 0; echo; ls | wc -l; sha256sum zz-large | cut -d' ' -f1";
    assert_eq!(look(&lab, script), format!("changed\n200\n{}", sum(&large)));
    assert!(!staged.exists(), "nothing is left of it");

    // What the service writes stays.
    look(&lab, "echo written >/data/state; echo other >/data/pages/0; sync");
    fs::write(site.join("added"), "new").unwrap();
    lab.deploy(2, COMPOSE, &[]).done();
    assert_eq!(
        look(&lab, "cat /data/state /data/pages/0; ls /data"),
        "written\nother\npages\nstate"
    );

    // Unless it is replaced, after a look at what would be lost.
    let dry = ["--output", "json", "deploy", &file, "--upload=./site", "--dry-run"];
    let dry = lab.vc(1, &dry).json();
    let uploads = dry["uploads"].as_array().unwrap();
    assert_eq!(uploads[0]["only_in_volume"]["first"], serde_json::json!(["state"]), "{dry}");
    assert_eq!(uploads[0]["newer_in_volume"]["first"], serde_json::json!(["pages/0"]), "{dry}");
    assert_eq!(uploads[0]["only_in_directory"]["first"], serde_json::json!(["added"]), "{dry}");
    lab.vc(1, &["deploy", &file, "--upload=other", "-y"]).refused_with("uploads no such directory");
    let replaced = lab.vc(2, &["--output", "json", "deploy", &file, "--upload", "-y"]).json();
    let change = replaced.as_array().unwrap().iter().find(|it| it["change"] == "volume_replaced");
    let before = change.map(|it| it["before"].clone()).unwrap_or(Value::Null);
    lab.settled(&[1, 2], "shop/web", 1);
    assert_eq!(look(&lab, "cat /data/pages/0; echo; ls /data"), "changed\nadded\npages");
    let again = lab.vc(1, &["deploy", &file, "--upload", "-y"]);
    assert!(again.err.contains("nothing to upload"), "{}", again.err);

    // Files go into the volume while the service runs.
    lab.vc(2, &["volume", "cp", &file, &format!("{volume}:/pages/")]).done();
    lab.vc(2, &["volume", "cp", &file, &format!("{volume}:/none/")]).refused_with("no directory");
    assert_eq!(look(&lab, "cat /data/pages/compose.yaml"), COMPOSE.trim());

    // What it had is a snapshot.
    lab.vc(1, &["scale", "shop/web=0"]).done();
    let before = before.as_str().expect("a snapshot");
    until("the volume is restored", DEADLINE, || {
        let output = lab.vc(1, &["volume", "restore", &volume, "--at", before]);
        if output.out.contains("restored from") { Ok(()) } else { Err(output.err) }
    });
    // And into one that no service uses.
    lab.vc(1, &["volume", "cp", &file, &format!("{volume}:/late")]).done();
    lab.vc(1, &["scale", "shop/web=1"]).done();
    assert_eq!(
        look(&lab, "cat /data/state /data/pages/0; ls /data"),
        "written\nother\nlate\npages\nstate"
    );
}

const ONE_FILE: &str = "
name: shop
services:
  web:
    image: vc-test:1
    command: [sleep, '900']
    volumes: ['./words.bin:/usr/share/words.bin']
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 500ms}}
";

#[test]
fn a_large_file_is_a_volume_that_is_copied_and_replaced() {
    let lab = Lab::cluster(2);
    let file = lab.file("compose.yaml", ONE_FILE);
    let words = Path::new(&file).with_file_name("words.bin");
    write_noise(&words, 5 << 20);
    let first = sum(&words);
    let dry = lab.vc(1, &["deploy", &file, "--dry-run"]);
    assert!(dry.err.contains("would upload") && dry.err.contains("1 files"), "{}", dry.err);
    lab.deploy(1, ONE_FILE, &["--wait"]).done();
    let sha = "sha256sum /usr/share/words.bin | cut -d' ' -f1";
    assert_eq!(look(&lab, sha), first);
    assert_eq!(look(&lab, "ls /usr/share"), "words.bin", "nothing else is uploaded or mounted");

    // The service writes it, and another node has a copy.
    look(&lab, "echo more >>/usr/share/words.bin; sync");
    let written = look(&lab, sha);
    assert_ne!(written, first);
    until("both nodes have what was written", DEADLINE, || {
        let has = |host: &usize| {
            let volumes = lab.files_of(*host).join("node/volumes/shop");
            let mut find = Command::new("find");
            find.arg(volumes).args(["-name", "words.bin", "-exec", "sha256sum", "{}", "+"]);
            String::from_utf8(find.output().unwrap().stdout).unwrap().contains(&written)
        };
        let all = [1, 2].iter().all(has);
        if all { Ok(()) } else { Err(()) }
    });

    // A deployment leaves it, and says so; it is replaced when that is asked for.
    write_noise(&words, 6 << 20);
    let output = lab.deploy(1, ONE_FILE, &[]);
    assert!(output.err.contains("which stays"), "{}", output.err);
    assert_eq!(look(&lab, sha), written);
    lab.deploy(2, ONE_FILE, &["--upload=words.bin", "-y", "--wait"]).done();
    lab.settled(&[1, 2], "shop/web", 1);
    assert_eq!(look(&lab, sha), sum(&words));
    assert_eq!(lab.rows(1, &["volume", "ls"]).len(), 1);
}
