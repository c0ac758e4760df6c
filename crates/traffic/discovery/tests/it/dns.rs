//! Endpoints from a name server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use runtime_discovery::{Dns, Service};
use runtime_kernel::ManualClock;
use tokio::net::UdpSocket;

use super::sources::authorities;

type Zone = Arc<Mutex<HashMap<(String, RecordType), Vec<(u32, RData)>>>>;

/// A name server of what the zone holds at the moment; any other name does not exist.
async fn server(zone: &Zone) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let zone = Arc::clone(zone);
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((size, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..size]).unwrap();
            let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
            answer.metadata.recursion_available = true;
            let asked = query.queries[0].clone();
            let name = asked.name().to_utf8();
            {
                let zone = zone.lock().unwrap();
                let found = zone.get(&(name.clone(), asked.query_type()));
                if !zone.keys().any(|(known, _)| *known == name) {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                for (ttl, data) in found.into_iter().flatten() {
                    answer.add_answer(Record::from_rdata(asked.name().clone(), *ttl, data.clone()));
                }
            }
            answer.queries.push(asked);
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    address
}

fn a(address: &str) -> RData {
    RData::A(A(address.parse().unwrap()))
}

fn aaaa(address: &str) -> RData {
    RData::AAAA(AAAA(address.parse().unwrap()))
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_utf8(target).unwrap()))
}

fn set(zone: &Zone, name: &str, kind: RecordType, records: Vec<(u32, RData)>) {
    zone.lock().unwrap().insert((name.to_owned(), kind), records);
}

async fn turn(clock: &ManualClock, time: Duration) {
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(time);
}

#[tokio::test]
async fn addresses_of_both_families_are_looked_up_again_when_their_time_is_over() {
    let (zone, clock) = (Zone::default(), ManualClock::new());
    set(&zone, "orders.test.", RecordType::A, vec![(30, a("10.0.0.2")), (60, a("10.0.0.1"))]);
    set(&zone, "orders.test.", RecordType::AAAA, vec![(60, aaaa("2001:db8::1"))]);
    let dns = Dns::addresses("orders.test", 8080, Arc::new(clock.clone())).unwrap();
    let dns = dns.server(server(&zone).await).unwrap();
    let (mut service, watching) = Service::new("orders", dns, Arc::new(clock.clone()));
    tokio::spawn(watching.run());
    let told = service.ready().await.unwrap();
    assert_eq!(authorities(&told), ["10.0.0.1:8080", "10.0.0.2:8080", "[2001:db8::1]:8080"]);

    set(&zone, "orders.test.", RecordType::A, vec![(30, a("10.0.0.3"))]);
    set(&zone, "orders.test.", RecordType::AAAA, vec![]);
    turn(&clock, Duration::from_secs(30)).await;
    let known = service.changed().await.unwrap();
    assert_eq!(authorities(&known.endpoints.unwrap()), ["10.0.0.3:8080"], "one family is enough");

    zone.lock().unwrap().clear();
    turn(&clock, Duration::from_secs(30)).await;
    let known = service.changed().await.unwrap();
    assert_eq!(authorities(&known.endpoints.unwrap()), ["10.0.0.3:8080"], "the last that was known");
    assert!(known.stale.unwrap().contains("orders.test"));
}

#[tokio::test]
async fn services_bring_their_ports_and_weights_and_only_the_best_priority_counts() {
    let (zone, clock) = (Zone::default(), ManualClock::new());
    let name = "_http._tcp.orders.test.";
    let records = vec![
        (60, srv(1, 5, 8001, "one.test.")),
        (60, srv(1, 0, 8002, "two.test.")),
        (60, srv(2, 9, 8003, "spare.test.")),
    ];
    set(&zone, name, RecordType::SRV, records);
    set(&zone, "one.test.", RecordType::A, vec![(60, a("10.0.0.1"))]);
    set(&zone, "two.test.", RecordType::AAAA, vec![(60, aaaa("2001:db8::2"))]);
    set(&zone, "spare.test.", RecordType::A, vec![(60, a("10.0.0.9"))]);
    let dns = Dns::services("_http._tcp.orders.test", Arc::new(clock.clone())).unwrap();
    let dns = dns.server(server(&zone).await).unwrap();
    let (mut service, watching) = Service::new("orders", dns, Arc::new(clock.clone()));
    tokio::spawn(watching.run());
    let told: Vec<_> = service.ready().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.0.0.1:8001;weight=5", "[2001:db8::2]:8002"]);
}
