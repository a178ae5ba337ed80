use super::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A tree of files.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn found(root: &TempDir, process: u32) -> Vec<(String, &'static str, String)> {
    let peers = Host::at(root.path(), process).peers().into_iter();
    peers.map(|peer| (peer.address.to_string(), peer.role.name(), peer.found)).collect()
}

const SSH: &str = "the other end of your SSH connection";

#[test]
fn ssh_connections_are_found_though_sudo_strips_them() {
    let root = tree(&[
        ("proc/40/status", "Name:\tdetector\nPPid:\t39\n"),
        ("proc/40/environ", "PATH=/bin\0"),
        ("proc/39/status", "Name:\tsudo\nPPid:\t38\n"),
        ("proc/39/environ", "PATH=/bin\0"),
        ("proc/38/status", "Name:\tbash\nPPid:\t1\n"),
        ("proc/38/environ", "LANG=C\0SSH_CONNECTION=fe80::7%eth0 50022 2001:db8::5 2222\0"),
        ("proc/1/status", "Name:\tinit\nPPid:\t0\n"),
    ]);
    assert_eq!(found(&root, 40), [("fe80::7".into(), SSH, "SSH_CONNECTION of process 38".into())]);
    let local = "[2001:db8::5]:2222".parse().unwrap();
    assert_eq!(Host::at(root.path(), 40).peers()[0].role, Role::Ssh { local });
    assert_eq!(found(&root, 1), []);
}

#[test]
fn connections_of_sshd_are_found_without_the_variable() {
    let head =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    let v4 = format!(
        "{head}   0: 0A00000A:0016 07336A C6\n   1: 050200C0:0016 076433C6:C366 01 00000000:00000000 00:00000000 00000000 0 0 4711 1\n\
         \x20  2: 050200C0:0016 086433C6:C366 01 00000000:00000000 00:00000000 00000000 0 0 4712 1\n\
         \x20  3: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4713 1\n"
    );
    let v6 = format!(
        "{head}   0: 0000000000000000FFFF0000050200C0:0016 0000000000000000FFFF0000096433C6:C366 01 0:0 0:0 0 0 0 4714 1\n\
         \x20  1: B80D0120000000000000000005000000:0016 B80D0120000000000000000007000000:C366 01 0:0 0:0 0 0 0 4715 1\n"
    );
    let root = tree(&[
        ("proc/9/status", "Name:\tdetector\nPPid:\t8\n"),
        ("proc/8/status", "Name:\tsshd-session\nPPid:\t1\n"),
        ("proc/8/comm", "sshd-session\n"),
        ("proc/8/fd/keep", ""),
        ("proc/net/tcp", &v4),
        ("proc/net/tcp6", &v6),
    ]);
    for (descriptor, inode) in [(3, 4711), (4, 4713), (5, 4714), (6, 4715)] {
        let fd = root.path().join(format!("proc/8/fd/{descriptor}"));
        symlink(format!("socket:[{inode}]"), fd).unwrap();
    }
    let addresses: Vec<_> = found(&root, 9).into_iter().map(|(address, ..)| address).collect();
    assert_eq!(addresses, ["198.51.100.7", "198.51.100.9", "2001:db8::7"]);
}

#[test]
fn sessions_of_everybody_are_found_and_who_just_connects_is_not() {
    let line = |number: u32, peer: &str, inode: u32| {
        format!("   {number}: 050200C0:0016 {peer}:C366 01 0:0 0:0 0 0 0 {inode} 1\n")
    };
    let table = format!("head\n{}{}", line(0, "076433C6", 4711), line(1, "086433C6", 4712));
    let root = tree(&[
        ("proc/8/comm", "sshd\n"),
        ("proc/8/cmdline", "sshd: user@pts/0\0"),
        ("proc/8/fd/keep", ""),
        ("proc/9/comm", "sshd\n"),
        ("proc/9/cmdline", "sshd: root [priv]\0"),
        ("proc/9/fd/keep", ""),
        ("proc/20/status", "PPid:\t1\n"),
        ("proc/20/environ", "SSH_CONNECTION=198.51.100.20 50022 192.0.2.5 22\0"),
        ("proc/net/tcp", &table),
    ]);
    for (process, inode) in [(8, 4711), (9, 4712)] {
        symlink(format!("socket:[{inode}]"), root.path().join(format!("proc/{process}/fd/3"))).unwrap();
    }
    let addresses = |host: Host| {
        let peers = host.peers().into_iter();
        peers.map(|peer| peer.address.to_string()).collect::<Vec<_>>()
    };
    let everybody = Host { root: root.path().to_owned(), ..Host::of_everybody() };
    assert_eq!(addresses(everybody.clone()), ["198.51.100.7"]);
    assert_eq!(addresses(everybody.clone().and_of_process(Some(20))), ["198.51.100.20", "198.51.100.7"]);
    // A session between, as that of a shell, is a caller's whatever its title.
    assert_eq!(addresses(Host::at(root.path(), 9)), ["198.51.100.8"]);
    let client = |address: &str| {
        let [client, local] = [address, "[::ffff:192.0.2.5]:9443"].map(|end| end.parse().unwrap());
        everybody.clone().and_client(client, local)
    };
    let [peer, _] = client("[::ffff:198.51.100.30]:5555").peers().try_into().unwrap();
    assert_eq!((peer.address.to_string(), peer.role.name()), ("198.51.100.30".into(), "this API client"));
    assert_eq!(peer.role, Role::ApiClient { local: "192.0.2.5:9443".parse().unwrap() });
    assert_eq!(addresses(client("127.0.0.1:5555")), ["198.51.100.7"], "nobody filters loopback");
}

#[test]
fn default_gateways_are_found() {
    let root = tree(&[
        (
            "proc/net/route",
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             eth0\t000A000A\t020200C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
        ),
        (
            "proc/net/ipv6_route",
            "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
             20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n\
             00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n",
        ),
    ]);
    let gateway = "the default gateway";
    assert_eq!(
        found(&root, 1),
        [
            ("192.0.2.1".into(), gateway, "/proc/net/route".into()),
            ("fe80::1".into(), gateway, "/proc/net/ipv6_route".into())
        ]
    );
}

#[test]
fn resolvers_behind_a_stub_are_found() {
    let stub = "# made by systemd\nnameserver 127.0.0.53\noptions edns0\n";
    let behind = "nameserver 192.0.2.53\nnameserver 2001:db8::53\n";
    let root = tree(&[("etc/resolv.conf", stub), ("run/systemd/resolve/resolv.conf", behind)]);
    let addresses = |root| found(root, 1).into_iter().map(|(address, ..)| address).collect::<Vec<_>>();
    assert_eq!(addresses(&root), ["192.0.2.53", "2001:db8::53"]);
    let plain =
        tree(&[("etc/resolv.conf", behind), ("run/systemd/resolve/resolv.conf", "nameserver 9.9.9.9\n")]);
    assert_eq!(addresses(&plain), ["192.0.2.53", "2001:db8::53"]);
    assert!(addresses(&tree(&[("etc/resolv.conf", stub)])).is_empty());
}

#[test]
fn local_addresses_are_those_of_host_routes() {
    let root = tree(&[
        (
            "proc/net/fib_trie",
            "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 127.0.0.0/8 2 0 2\n        |-- 127.0.0.1\n           /32 host LOCAL\n\
             \x20    +-- 192.0.2.0/24 2 0 1\n        |-- 192.0.2.0\n           /24 link UNICAST\n        |-- 192.0.2.5\n           /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\n",
        ),
        (
            "proc/net/if_inet6",
            "00000000000000000000000000000001 01 80 10 80       lo\n20010db8000000000000000000000005 02 40 00 00     eth0\n",
        ),
    ]);
    let host = Host::at(root.path(), 1);
    let addresses: Vec<_> = host.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.5", "2001:db8::5"]);
    assert_eq!(host.ephemeral_first(), 32_768);
    let set = tree(&[("proc/sys/net/ipv4/ip_local_port_range", "10000\t20000\n")]);
    assert_eq!(Host::at(set.path(), 1).ephemeral_first(), 10_000);
}
