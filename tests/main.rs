//! Flows, most on a real bitcoind: one program, because each would link all of Sortie again (100 MB apiece).

mod block_files;
mod cli;
mod esplora;
mod esplora_bump;
mod evidence;
mod follow_command;
mod forced;
mod hostile_sequencer;
mod hostile_source;
mod many_in_one;
mod money_anywhere;
mod money_bump;
mod money_chain;
mod money_closed;
mod money_copies;
#[cfg(feature = "crash-points")]
mod money_crash;
#[cfg(feature = "crash-points")]
mod money_crash_more;
mod money_deadline;
mod money_envelopes;
mod money_limits;
mod money_locking;
mod money_payments;
mod money_psbt;
mod money_reorgs;
mod money_restore;
mod money_waiting;
mod money_watch_only;
mod money_way_out;
mod node_troubles;
mod power_cut;
mod proofs;
mod queue_command;
mod scenarios_flows;
mod scenarios_follower;
mod scenarios_service;
mod scenarios_table;
mod sequencer;
mod sequencer_kill;
mod sequencer_stuck;
mod soak;
mod sources;
mod status_command;
mod support;
