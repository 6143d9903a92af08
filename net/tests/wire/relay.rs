//! The relay on real sockets: what it says it did to datagrams is what their receiver sees.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use raftmap_net::relay::{Counts, Relay, Weather};
use tokio::net::UdpSocket;

const COUNT: u32 = 2_000;
/// How often the relay is asked whether all is through, and how often in a row at most with nothing arriving.
const LOOK: Duration = Duration::from_millis(20);
const SILENT_MAX: u32 = 500;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Road {
    source: UdpSocket,
    target: UdpSocket,
    relay: Relay,
}

async fn road() -> Road {
    let (source, target) = (UdpSocket::bind(ANY).await.unwrap(), UdpSocket::bind(ANY).await.unwrap());
    let relay = Relay::bind(ANY, target.local_addr().unwrap(), 7).await.unwrap();
    Road { source, target, relay }
}

impl Road {
    /// Sends numbered datagrams to the target and gives the numbers that arrive, in their order.
    async fn there(&self) -> Vec<u32> {
        numbers(&self.source, self.relay.address(), &self.target, || self.relay.counts().0).await
    }

    /// The same from the target to the source, by the address under which the target knows it.
    async fn back(&self, source: SocketAddr) -> Vec<u32> {
        numbers(&self.target, source, &self.source, || self.relay.counts().1).await
    }

    /// How the target knows the source.
    async fn greet(&self) -> SocketAddr {
        self.source.send_to(b"hello", self.relay.address()).await.unwrap();
        let mut buffer = [0; 16];
        let hello = tokio::time::timeout(Duration::from_secs(5), self.target.recv_from(&mut buffer)).await;
        let (length, from) = hello.expect("the greeting arrives").unwrap();
        assert_eq!(&buffer[..length], b"hello");
        from
    }
}

async fn numbers(from: &UdpSocket, to: SocketAddr, at: &UdpSocket, counts: impl Fn() -> Counts) -> Vec<u32> {
    let before = counts();
    let sending = async {
        for number in 0..COUNT {
            from.send_to(&number.to_le_bytes(), to).await.unwrap();
            // Paced: a burst would lose datagrams in buffers that are not the relay's.
            if number % 20 == 19 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    // By what the relay says, not by silence: on a busy machine there is silence in the midst of it.
    let through = || {
        let now = counts();
        let kept = now.came + now.doubled - now.lost - now.cut;
        let all_came = now.came - before.came == u64::from(COUNT);
        (all_came && kept == now.went).then(|| (now.went - before.went) as usize)
    };
    let receiving = async {
        let (mut numbers, mut buffer, mut silent) = (Vec::new(), [0; 16], 0);
        while through() != Some(numbers.len()) && silent < SILENT_MAX {
            match tokio::time::timeout(LOOK, at.recv_from(&mut buffer)).await {
                Ok(received) => {
                    assert_eq!(received.unwrap().0, 4);
                    numbers.push(u32::from_le_bytes(buffer[..4].try_into().unwrap()));
                    silent = 0;
                }
                Err(_) => silent += 1,
            }
        }
        numbers
    };
    tokio::join!(sending, receiving).1
}

fn distinct(numbers: &[u32]) -> usize {
    numbers.iter().collect::<BTreeSet<_>>().len()
}

fn overtaken(numbers: &[u32]) -> usize {
    numbers.windows(2).filter(|pair| pair[1] < pair[0]).count()
}

#[tokio::test]
async fn good_weather_passes_everything_in_order_and_one_address_stands_for_a_source() {
    let road = road().await;
    let known = road.greet().await;
    assert_eq!(road.there().await, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(road.back(known).await, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(road.greet().await, known);
    let (there, back) = road.relay.counts();
    assert_eq!((there.came, there.went, back.came, back.went), (2_002, 2_002, 2_000, 2_000));
}

#[tokio::test]
async fn a_way_cut_there_still_leads_back() {
    let road = road().await;
    let known = road.greet().await;
    road.relay.set_there(Weather::CUT);
    assert_eq!(road.there().await, []);
    assert_eq!(road.back(known).await.len(), COUNT as usize);
    assert_eq!(road.relay.counts().0.cut, COUNT.into());
    road.relay.set_there(Weather::default());
    road.relay.set_back(Weather::CUT);
    assert_eq!(road.there().await.len(), COUNT as usize);
    assert_eq!(road.back(known).await, []);
}

#[tokio::test]
async fn what_is_lost_does_not_arrive() {
    let road = road().await;
    road.relay.set_there(Weather { lost_per_mille: 100, ..Weather::default() });
    let numbers = road.there().await;
    let lost = road.relay.counts().0.lost;
    assert!((100..300).contains(&lost), "{lost} of {COUNT}");
    assert_eq!(numbers.len() as u64, u64::from(COUNT) - lost);
    assert_eq!(overtaken(&numbers), 0);
}

#[tokio::test]
async fn what_is_doubled_arrives_twice() {
    let road = road().await;
    road.relay.set_there(Weather { doubled_per_mille: 100, ..Weather::default() });
    let numbers = road.there().await;
    let doubled = road.relay.counts().0.doubled;
    assert!((100..300).contains(&doubled), "{doubled} of {COUNT}");
    assert_eq!(numbers.len() as u64, u64::from(COUNT) + doubled);
    assert_eq!(distinct(&numbers), COUNT as usize);
}

#[tokio::test]
async fn what_is_held_back_is_overtaken() {
    let road = road().await;
    road.relay.set_there(Weather { held_per_mille: 100, ..Weather::default() });
    let numbers = road.there().await;
    let held = road.relay.counts().0.held as usize;
    assert!((100..300).contains(&held), "{held} of {COUNT}");
    assert!(overtaken(&numbers) > held / 4, "{} of {held}", overtaken(&numbers));
    assert_eq!((numbers.len(), distinct(&numbers)), (COUNT as usize, COUNT as usize));
}

#[tokio::test]
async fn what_is_delayed_comes_later_and_in_its_order() {
    let road = road().await;
    let delay = Duration::from_millis(50);
    road.relay.set_there(Weather { delay, ..Weather::default() });
    let begun = std::time::Instant::now();
    road.greet().await;
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    let numbers = road.there().await;
    assert_eq!((numbers.len(), overtaken(&numbers)), (COUNT as usize, 0));
    road.relay.set_there(Weather { delay, jitter: delay, ..Weather::default() });
    assert!(overtaken(&road.there().await) > 100);
}

#[tokio::test]
async fn a_stranger_does_not_speak_for_the_target() {
    let road = road().await;
    let known = road.greet().await;
    let stranger = UdpSocket::bind(ANY).await.unwrap();
    stranger.send_to(b"it is me", known).await.unwrap();
    road.target.send_to(b"me", known).await.unwrap();
    let mut buffer = [0; 16];
    let (length, from) = road.source.recv_from(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..length], from), (&b"me"[..], road.relay.address()));
}

#[tokio::test]
async fn it_ends_when_dropped() {
    let Road { source, target, relay } = road().await;
    let address = relay.address();
    drop(relay);
    tokio::time::sleep(Duration::from_millis(50)).await;
    UdpSocket::bind(address).await.expect("its address is free again");
    drop((source, target));
}
