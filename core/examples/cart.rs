//! A shopping cart that both sides of a partition may fill (DeCandia et al. 2007, sections 4.4 and 6).
//!
//! A value is the whole cart, so two writes that did not know of each other are two carts: siblings. A plain
//! read shows one of them, the same at every replica. The shop reads all, unites them, and writes the union
//! with [`Map::resolve`], which supersedes exactly what was read. Whatever was added meanwhile, at whichever
//! replica, stays beside it as another sibling for the next read to unite: nothing is lost.
//!
//! Two shops are two replicas; the network is a loop that carries datagrams, or does not.
//!
//! `cargo run -p brickwork-core --example cart`

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::map::{Config, Context, InsertError, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

/// What is in a cart: one name per line.
type Cart = BTreeSet<String>;

/// A shop: a replica of the map, and the clock of this example.
struct Shop {
    map: Map,
    now: Instant,
}

/// What a customer was shown, and what a change of it is based on.
struct Shown {
    cart: Cart,
    context: Context,
}

impl Shop {
    fn open(id: u64, others: &[u64]) -> Result<Self, Box<dyn Error>> {
        let now = Instant::ZERO;
        let replica = ReplicaId::new(NodeId(id), 1);
        let entropy = [u8::try_from(id)?; 32]; // from the system in production
        let mut map = Map::new(now, replica, "shop", Config::lan(), 1400, entropy)?;
        for &other in others {
            map.peer_up(now, NodeId(other), 1, addr(other));
        }
        Ok(Self { map, now })
    }

    /// Shows the union of all siblings of a cart.
    fn show(&self, customer: &str) -> Shown {
        let siblings = self.map.siblings(customer.as_bytes());
        let lines = siblings.flat_map(|sibling| {
            let text = String::from_utf8_lossy(sibling.value).into_owned();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        Shown { cart: lines.collect(), context: self.map.context(customer.as_bytes()) }
    }

    /// Puts a cart in the place of what was shown.
    fn put(&mut self, customer: &str, shown: &Shown, cart: &Cart) -> Result<(), InsertError> {
        let text = cart.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let (key, value) = (customer.as_bytes(), Some(text.as_bytes()));
        self.map.resolve(self.now, key, &shown.context, value).map(drop)
    }

    /// What a click on "add" does.
    fn add(&mut self, customer: &str, item: &str) -> Result<(), InsertError> {
        let shown = self.show(customer);
        let mut cart = shown.cart.clone();
        cart.insert(item.to_owned());
        self.put(customer, &shown, &cart)
    }

    /// How many carts of the customer there are that nobody has united.
    fn siblings(&self, customer: &str) -> usize {
        self.map.siblings(customer.as_bytes()).count()
    }
}

fn addr(id: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7000 + u16::try_from(id).unwrap_or(0)))
}

/// Lets time pass. With a `cable` between the shops datagrams arrive, without it they are lost.
fn pass(shops: &mut [Shop; 2], time: Duration, cable: bool) -> Result<(), Box<dyn Error>> {
    let end = shops[0].now + time;
    while shops[0].now < end {
        for from in 0..2 {
            let (sender, receiver) = match shops {
                [one, two] if from == 0 => (one, two),
                [one, two] => (two, one),
            };
            let mut buf = [0; 1400];
            while let Some(sent) = sender.map.poll_transmit(&mut buf) {
                let len = sent.payload.len();
                if cable {
                    let source = addr(sender.map.replica().node.0);
                    receiver.map.handle_packet(receiver.now, source, &mut buf[..len])?;
                }
            }
        }
        for shop in &mut *shops {
            shop.now += Duration::from_millis(10);
            shop.map.handle_timeout(shop.now);
        }
    }
    Ok(())
}

fn cart(items: &[&str]) -> Cart {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut shops = [Shop::open(1, &[2])?, Shop::open(2, &[1])?];
    let second = Duration::from_secs(1);

    // One network: each shop goes on from what the other wrote.
    shops[0].add("ann", "milk")?;
    pass(&mut shops, second, true)?;
    shops[1].add("ann", "bread")?;
    pass(&mut shops, second, true)?;
    assert_eq!(shops[0].show("ann").cart, cart(&["bread", "milk"]));
    println!("both shops: {:?}", shops[0].show("ann").cart);

    // The cable is cut, and Ann shops on both sides. She takes the milk out on one of them.
    let shown = shops[0].show("ann");
    shops[0].put("ann", &shown, &cart(&["bread", "eggs"]))?;
    shops[0].add("ann", "tea")?;
    shops[1].add("ann", "salt")?;
    pass(&mut shops, second, false)?;
    println!("cut off: {:?} and {:?}", shops[0].show("ann").cart, shops[1].show("ann").cart);
    assert_eq!(shops[0].show("ann").cart, cart(&["bread", "eggs", "tea"]));
    assert_eq!(shops[1].show("ann").cart, cart(&["bread", "milk", "salt"]));

    // A page that shows the cart of the time before, left open on the other side.
    let stale = shops[1].show("ann");

    // The cable is mended: both carts are there, at both shops, and a plain read shows the same one.
    pass(&mut shops, 5 * second, true)?;
    let plain = shops[0].map.get(b"ann").map(<[u8]>::to_vec);
    assert_eq!(plain.as_deref(), shops[1].map.get(b"ann"));
    assert_eq!((shops[0].siblings("ann"), shops[1].siblings("ann")), (2, 2));
    let all = cart(&["bread", "eggs", "milk", "salt", "tea"]);
    assert_eq!(
        shops[1].show("ann").cart,
        all,
        "Dynamo's anomaly: the milk is back, nothing is lost"
    );
    println!("mended: {:?} out of {} carts", shops[1].show("ann").cart, shops[1].siblings("ann"));

    // What is put from the stale page supersedes what that page had shown, and not what came since.
    shops[1].put("ann", &stale, &cart(&["bread", "milk", "salt", "wine"]))?;
    assert_eq!(shops[1].siblings("ann"), 2);
    assert!(shops[1].show("ann").cart.is_superset(&cart(&["eggs", "tea", "wine"])));

    // Any write that was shown all of them makes one cart of them.
    shops[0].add("ann", "rice")?;
    pass(&mut shops, 5 * second, true)?;
    shops[1].add("ann", "soap")?;
    pass(&mut shops, 5 * second, true)?;
    let all = cart(&["bread", "eggs", "milk", "rice", "salt", "soap", "tea", "wine"]);
    for shop in &shops {
        assert_eq!((shop.siblings("ann"), shop.show("ann").cart), (1, all.clone()));
    }
    println!("united: {all:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_is_lost() -> Result<(), Box<dyn std::error::Error>> {
        super::main()
    }
}
