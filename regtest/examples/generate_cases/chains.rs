//! Rollups on made-up Bitcoin chains.

use super::fuzz::made;
use super::fuzz::rollup::{Draft, SECP, SPACING, START_TIME, Signers, batch_body, handover_body, keypair};
use super::fuzz::seeds::Numbers;
use super::node::Node;
use super::{Case, hash, hex, hexes, pick};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::Magic;
use bitcoin::{BlockHash, Transaction};
use serde_json::{Value, json};
use sortie::envelope::{Body, Carrier, Payload};
use sortie::executor::ledger::{TRANSFER_LEN, Transfer};
use sortie::manifest::{ExecutorKind, ExecutorSpec, Fields, LedgerParameters, Manifest};
use sortie::primitives::BlockRef;

/// A rollup and the Bitcoin chain that it is on.
#[derive(Clone)]
pub struct Scene {
    name: String,
    pub node: Node,
    /// Every set that can be in force.
    pub sets: [Signers; 3],
    times: Vec<u32>,
    raws: Vec<Vec<u8>>,
    salt: u32,
}

/// The scenes that batches and handovers are judged in.
pub fn scenes(numbers: &mut Numbers) -> Vec<Scene> {
    let scenes = (0..24).map(|number| {
        let mut scene = Scene::new(numbers, format!("chain {number}"));
        for _ in 0..2 + numbers.below(6) {
            let bodies = (0..numbers.below(3)).map(|_| scene.forced(numbers)).collect();
            scene.mine(numbers, bodies);
            if numbers.below(3) == 0 {
                let draft = scene.draft(numbers, 0, Draft::new(scene.node.derivation.head()));
                let body = Body::Batch(scene.sign(&draft, 0, &draft.data()));
                scene.mine(numbers, vec![body]);
            }
        }
        if number % 4 == 0 {
            let next = scene.sets[2].set();
            let body = handover_body(
                &scene.node.manifest.rollup_id(),
                scene.node.derivation.handovers(),
                scene.signers(),
                &next,
            );
            scene.mine(numbers, vec![Body::Handover(body)]);
        }
        scene
    });
    scenes.collect()
}

impl Scene {
    pub fn new(numbers: &mut Numbers, name: String) -> Self {
        let sets = [Signers::new([1], 1), Signers::new([2, 3, 4], 1), Signers::new([1, 5], 2)];
        let window = 2 + numbers.below(8) as u16;
        let first = pick(numbers, &[0, 0, 0, 1, 1, 2]);
        let manifest = Manifest::new(Fields {
            name: "case".into(),
            network: Magic::REGTEST,
            start: BlockRef {
                height: pick(numbers, &[100, 100, 100, 0, 1, 7, 840_000]),
                hash: BlockHash::from_byte_array(hash(numbers)),
            },
            sequencing_window: window,
            max_lag: 1 + numbers.below(window.into()) as u16,
            max_forced_per_block: 1 + numbers.below(6) as u16,
            sequencers: sets[first].set(),
            executor: executor(numbers),
            predecessor: None,
        })
        .expect("every bound holds");
        let ancestors = if numbers.below(4) == 0 { numbers.below(10) } else { 10 } as u32;
        let jitter = |numbers: &mut Numbers, ago: u32| START_TIME - ago * SPACING + numbers.below(900) as u32;
        let times: Vec<_> = (0..=ancestors).rev().map(|ago| jitter(numbers, ago)).collect();
        let node = Node::start(manifest, &times);
        Self { name, node, sets, times, raws: Vec::new(), salt: 0 }
    }

    pub fn line(&self) -> Value {
        let Value::Object(mut line) = self.beginning() else { unreachable!("an object") };
        line.insert("scene".into(), self.name.clone().into());
        line.insert("blocks".into(), json!(hexes(&self.raws)));
        line.into()
    }

    fn beginning(&self) -> Value {
        let (start_time, ancestor_times) = self.times.split_last().expect("the start block's");
        let manifest = hex(self.node.manifest.encode());
        json!({ "manifest": manifest, "ancestor_times": ancestor_times, "start_time": start_time })
    }

    /// The question what becomes of more blocks.
    pub fn ask(mut self, raws: &[Vec<u8>]) -> Case {
        let blocks: Vec<_> = raws.iter().map(|raw| self.node.see(raw)).collect();
        Case { input: json!({ "scene": self.name, "blocks": hexes(raws) }), expected: json!({ "blocks": blocks }) }
    }

    pub fn signers(&self) -> &Signers {
        let in_force = |set: &&Signers| set.set() == *self.node.derivation.sequencers();
        self.sets.iter().find(in_force).expect("nobody else can sign")
    }

    pub fn sign(&self, draft: &Draft, codec: u8, data: &[u8]) -> Vec<u8> {
        let (id, handovers) = (self.node.manifest.rollup_id(), self.node.derivation.handovers());
        batch_body(&id, handovers, self.signers(), &draft.terms, codec, data)
    }

    /// Something for the queue, or other payloads that are not judged.
    pub fn forced(&self, numbers: &mut Numbers) -> Body {
        match numbers.below(8) {
            0 => Body::Txs((0..1 + numbers.below(4)).map(|_| numbers.bytes(64)).collect()),
            1 => Body::Unsupported(pick(numbers, &[0, 3, 0x12]), vec![1]),
            2 => Body::Tx(self.transfer(numbers)),
            3 => Body::Tx([&[1][..], &[0xff; TRANSFER_LEN - 1]].concat()),
            _ => {
                let len = 1 + numbers.below(80);
                Body::Tx(numbers.bytes(len))
            }
        }
    }

    /// A signed transfer, which an opaque executor takes for any bytes.
    fn transfer(&self, numbers: &mut Numbers) -> Vec<u8> {
        let account = |n: u8| keypair(n).x_only_public_key().0.serialize();
        let nonce = numbers.below(2) as u64;
        let transfer = Transfer { from: account(1), to: account(2), amount: numbers.below(90) as u64, fee: 1, nonce };
        transfer.sign(&SECP, &self.node.manifest.rollup_id(), &keypair(1))
    }

    pub fn next_time(&self, numbers: &mut Numbers) -> u32 {
        if numbers.below(40) == 0 {
            return pick(numbers, &[0, 1, u32::MAX - 7200, u32::MAX]);
        }
        let blocks = u32::try_from(self.raws.len() + 1).expect("a few");
        START_TIME + blocks * SPACING + numbers.below(1800) as u32 - 600
    }

    /// Blocks that the rules allow, in a batch that the next Bitcoin block carries.
    pub fn draft(&self, numbers: &mut Numbers, time: u32, mut draft: Draft) -> Draft {
        let derivation = &self.node.derivation;
        let carrier_height = derivation.tip().block.height + 1;
        for _ in 0..1 + numbers.below(3) {
            let advances = numbers.below(3) > 0 && draft.next_origin(derivation, true).is_some();
            let origin = draft.next_origin(derivation, advances).expect("not above the tip");
            let lower_bound = draft.head.header.child_lower_bound(&origin);
            let room = (u64::from(time) + 7200).saturating_sub(lower_bound);
            let fresh = carrier_height - origin.block.height <= u32::from(self.node.manifest.max_lag);
            let txs = (0..numbers.below(3)).map(|_| numbers.bytes(1 + room.min(40) as usize)).filter(|_| fresh);
            let txs = txs.collect();
            draft = draft.block(derivation, advances, (numbers.below(900) as u64).min(room), txs);
        }
        draft
    }

    /// A raw block on the tip that carries these, and what else the chain is to remember.
    pub fn block(&mut self, numbers: &mut Numbers, time: u32, bodies: Vec<Body>) -> Vec<u8> {
        let namespace = self.node.manifest.rollup_id().namespace();
        let mut txs: Vec<Transaction> = Vec::new();
        for body in bodies {
            let payload = Payload { namespace, body }.encode().expect("a body of a payload");
            let carrier = pick(numbers, &[Carrier::Taproot, Carrier::OpReturn]);
            self.salt += 1;
            let tx = made::carry(carrier, &payload, self.salt);
            match txs.last_mut() {
                // Two envelopes in one transaction, inputs before outputs.
                Some(last) if carrier == Carrier::OpReturn && numbers.below(3) == 0 => last.output.extend(tx.output),
                _ => txs.push(tx),
            }
        }
        self.salt += 1;
        serialize(&made::block(self.node.derivation.tip().block.hash, time, self.salt, txs))
    }

    /// Mines a block on the tip.
    pub fn mine(&mut self, numbers: &mut Numbers, bodies: Vec<Body>) -> Value {
        let time = self.next_time(numbers);
        let raw = self.block(numbers, time, bodies);
        let seen = self.node.see(&raw);
        self.raws.push(raw);
        seen
    }
}

fn executor(numbers: &mut Numbers) -> ExecutorSpec {
    if numbers.below(2) == 0 {
        return ExecutorSpec { kind: ExecutorKind::Opaque, parameters: Vec::new() };
    }
    let account = |n: u8| keypair(n).x_only_public_key().0.serialize();
    let accounts = vec![(account(1), 100)];
    let parameters = LedgerParameters { forced_cost_per_byte: 1, fee_account: account(3), accounts };
    ExecutorSpec { kind: ExecutorKind::Ledger, parameters: parameters.encode() }
}

/// Bitcoin blocks from the start on, with reorganisations: the whole L2 chain.
pub fn derivation(numbers: &mut Numbers) -> Case {
    let mut scene = Scene::new(numbers, String::new());
    let beginning = scene.beginning();
    let (mut blocks, mut handed_over) = (Vec::new(), false);
    for _ in 0..4 + numbers.below(10) {
        if numbers.below(5) == 0 {
            let depth = numbers.below(4).min(scene.node.depth());
            for _ in 0..depth {
                scene.node.roll_back();
                handed_over = false;
            }
        }
        let mut bodies: Vec<_> = (0..numbers.below(4)).map(|_| scene.forced(numbers)).collect();
        match numbers.below(10) {
            0 => {
                let draft = scene.draft(numbers, START_TIME, Draft::new(scene.node.derivation.head()));
                bodies.push(Body::Batch(scene.sign(&draft, 0, &draft.data())));
            }
            1 if !handed_over => {
                let (id, seq) = (scene.node.manifest.rollup_id(), scene.node.derivation.handovers());
                let next = scene.sets[numbers.below(2)].set();
                bodies.push(Body::Handover(handover_body(&id, seq, scene.signers(), &next)));
                handed_over = true;
            }
            2 => bodies.push(Body::Batch(numbers.bytes(100))),
            _ => {}
        }
        blocks.push(scene.mine(numbers, bodies));
    }
    let Value::Object(mut input) = beginning else { unreachable!("an object") };
    input.insert("blocks".into(), json!(hexes(&scene.raws)));
    Case { input: input.into(), expected: json!({ "blocks": blocks }) }
}
