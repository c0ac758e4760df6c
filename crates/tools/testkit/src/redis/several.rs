//! Servers of a test's own: a single one, a master with its replica and sentinel, and a cluster.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::binary::{Running, Spawn};
use crate::error::TestkitError;
use crate::shared;

/// The service the sentinel watches.
const SERVICE: &str = "main";
const SLOTS: usize = 16_384;

/// One server. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    process: Running,
    port: u16,
}

impl Node {
    async fn start(folder: &Path, name: &str, options: &str) -> Result<Self, TestkitError> {
        let port = crate::free_port()?;
        let file = folder.join(format!("{name}.conf"));
        let (pid, dir) = (folder.join(format!("{name}.pid")), folder.display());
        let basics = format!("port {port}\nbind 127.0.0.1\ndir {dir}\npidfile {}\n", pid.display());
        std::fs::write(&file, format!("{basics}{options}"))?;
        let mut args = vec![file.display().to_string()];
        if name == "sentinel" {
            args.push("--sentinel".to_owned());
        }
        let process = Spawn::new(super::program()?, folder).args(args).start()?;
        let node = Self { process, port };
        crate::until("redis-server listening", async || node.ask("PING").await.is_ok()).await?;
        Ok(node)
    }

    /// Where to connect to this server alone.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill(&mut self) -> Result<(), TestkitError> {
        self.process.kill9().await
    }

    /// Freezes it: connections stay, and nothing is answered.
    ///
    /// # Errors
    /// The system refuses.
    pub fn stop(&self) -> Result<(), TestkitError> {
        self.process.sigstop()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn resume(&self) -> Result<(), TestkitError> {
        self.process.sigcont()
    }

    /// Asks one command of words without blanks, past every client, and answers with what came back as it came.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn ask(&self, command: &str) -> Result<String, TestkitError> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        // It answers what came, and hangs up. Sentinels do not know `QUIT`.
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Asks, and takes an error for one.
    async fn tell(&self, command: &str) -> Result<(), TestkitError> {
        match self.ask(command).await? {
            answer if answer.starts_with('-') => {
                Err(TestkitError::Failed { what: command.to_owned(), output: answer })
            }
            _ => Ok(()),
        }
    }

    async fn says(&self, command: &str, part: &str) -> bool {
        self.ask(command).await.is_ok_and(|answer| answer.contains(part))
    }
}

/// A server nobody else uses, so that what it counts is the test's own.
#[derive(Debug)]
pub struct TestServer {
    /// The server.
    pub node: Node,
    _folder: Folder,
}

/// Starts a server of the test's own.
///
/// # Errors
/// Redis is not installed, or does not start.
pub async fn own() -> Result<TestServer, TestkitError> {
    let folder = Folder::new()?;
    Ok(TestServer { node: Node::start(&folder.path, "own", "save \"\"\n").await?, _folder: folder })
}

/// A master, its replica, and a sentinel that makes the replica master within seconds once the master is gone.
#[derive(Debug)]
pub struct TestSentinel {
    /// The master at first.
    pub master: Node,
    /// Its replica at first.
    pub replica: Node,
    /// Who decides which is which.
    pub sentinel: Node,
    _folder: Folder,
}

/// Starts a master, a replica and a sentinel, which know each other.
///
/// # Errors
/// Redis is not installed, or does not start.
pub async fn sentinel() -> Result<TestSentinel, TestkitError> {
    let folder = Folder::new()?;
    let master = Node::start(&folder.path, "master", "save \"\"\nrepl-diskless-sync-delay 0\n").await?;
    let follow = format!("save \"\"\nreplicaof 127.0.0.1 {}\n", master.port);
    let replica = Node::start(&folder.path, "replica", &follow).await?;
    crate::until("a replica in step", async || master.says("INFO replication", "state=online").await).await?;
    // It learns of replicas when it first asks the master, and then not for a while.
    let watch = format!(
        "sentinel monitor {SERVICE} 127.0.0.1 {} 1\nsentinel down-after-milliseconds {SERVICE} 300\n\
         sentinel failover-timeout {SERVICE} 3000\n",
        master.port
    );
    let sentinel = Node::start(&folder.path, "sentinel", &watch).await?;
    // Since Redis 7. Before, a failover takes some ten seconds.
    sentinel.ask("SENTINEL DEBUG info-period 100 publish-period 100 ask-period 100").await?;
    let replicas = format!("SENTINEL REPLICAS {SERVICE}");
    crate::until("a replica the sentinel knows", async || {
        sentinel.says(&replicas, "master-link-status\r\n$2\r\nok").await
    })
    .await?;
    Ok(TestSentinel { master, replica, sentinel, _folder: folder })
}

impl TestSentinel {
    /// Where to connect, by way of the sentinel.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{SERVICE}", self.sentinel.port)
    }

    /// Makes the replica master and the master a replica, as an operator does, and waits until they are.
    ///
    /// # Errors
    /// The sentinel refuses.
    pub async fn swap(&mut self) -> Result<(), TestkitError> {
        self.sentinel.tell(&format!("SENTINEL FAILOVER {SERVICE}")).await?;
        let (old, new) = (&self.master, &self.replica);
        let role = "INFO replication";
        crate::until("a new master", async || {
            new.says(role, "role:master").await && old.says(role, "master_link_status:up").await
        })
        .await?;
        std::mem::swap(&mut self.master, &mut self.replica);
        Ok(())
    }
}

/// A cluster whose masters share the slots evenly. Killed when dropped.
#[derive(Debug)]
pub struct TestCluster {
    /// The masters in the order of their slots, and last one that has none yet.
    pub nodes: Vec<Node>,
    _folder: Folder,
}

/// Starts a cluster of so many masters, without replicas, and one more node that has no slots yet.
///
/// # Errors
/// Redis is not installed, or does not start.
pub async fn cluster(masters: usize) -> Result<TestCluster, TestkitError> {
    let folder = Folder::new()?;
    let mut nodes = Vec::new();
    for nth in 0..=masters {
        let bus = crate::free_port()?;
        let options = format!(
            "save \"\"\ncluster-enabled yes\ncluster-port {bus}\ncluster-config-file nodes-{nth}.conf\n\
             cluster-node-timeout 2000\n"
        );
        let node = Node::start(&folder.path, &format!("node-{nth}"), &options).await?;
        node.tell(&format!("CLUSTER SET-CONFIG-EPOCH {}", nth + 1)).await?;
        if nth < masters {
            let (from, to) = (SLOTS * nth / masters, SLOTS * (nth + 1) / masters - 1);
            node.tell(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")).await?;
        }
        if let Some(Node { port, .. }) = nodes.first() {
            node.tell(&format!("CLUSTER MEET 127.0.0.1 {port} {}", first_bus(&nodes).await?)).await?;
        }
        nodes.push(node);
    }
    let known = format!("cluster_known_nodes:{}", nodes.len());
    for node in &nodes {
        crate::until("a cluster in order", async || {
            node.says("CLUSTER INFO", "cluster_state:ok").await && node.says("CLUSTER INFO", &known).await
        })
        .await?;
    }
    Ok(TestCluster { nodes, _folder: folder })
}

/// The port the first node talks to others on.
async fn first_bus(nodes: &[Node]) -> Result<String, TestkitError> {
    let Some(first) = nodes.first() else { return Ok(String::new()) };
    let text = first.ask("CLUSTER NODES").await?;
    let own = text.lines().find(|line| line.contains("myself"));
    let bus = own.and_then(|line| line.split('@').nth(1)).and_then(|rest| rest.split([' ', ',']).next());
    bus.map(str::to_owned).ok_or(TestkitError::Failed { what: "CLUSTER NODES".to_owned(), output: text })
}

impl TestCluster {
    /// Where to connect: the first two nodes, which name the rest.
    pub fn url(&self) -> String {
        let first: Vec<_> =
            self.nodes.iter().take(2).map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", first.join(","))
    }

    /// The node that has a key's slot, and the slot.
    ///
    /// # Errors
    /// A node cannot be reached.
    pub async fn owner(&self, key: &str) -> Result<(&Node, usize), TestkitError> {
        let first = self.nodes.first().ok_or(TestkitError::Late("a node".to_owned()))?;
        let text = first.ask(&format!("CLUSTER KEYSLOT {key}")).await?;
        let slot: usize = text
            .trim()
            .trim_start_matches(':')
            .parse()
            .map_err(|_| TestkitError::Failed { what: "CLUSTER KEYSLOT".to_owned(), output: text.clone() })?;
        for node in &self.nodes {
            // Only its owner counts a slot's keys without being in doubt: the others would send the asker away.
            if !node.ask(&format!("EXISTS {key}")).await?.starts_with("-MOVED") {
                return Ok((node, slot));
            }
        }
        Err(TestkitError::Late(format!("the owner of slot {slot}")))
    }
}

/// The servers' folder, gone with them.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    _kept: TempDir,
}

impl Folder {
    fn new() -> Result<Self, TestkitError> {
        let kept = tempfile::Builder::new().prefix("runtime-redis-").tempdir()?;
        let path = kept.path().to_path_buf();
        // Does what dropping does should this process be killed before.
        let stop = format!(
            "for pid in '{0}'/*.pid; do kill -9 \"$(cat \"$pid\")\"; done; rm -rf '{0}'",
            path.display()
        );
        shared::watchdog(&shared::this_process_lives(), &stop, |_| {})?;
        Ok(Self { path, _kept: kept })
    }
}
