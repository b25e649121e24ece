-- A wallet's database as version 0.1.0 left it, with BDK's own tables: one coin mined, one forgotten.
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE bdk_schemas( name TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL ) STRICT;
INSERT INTO bdk_schemas VALUES('bdk_wallet',1);
INSERT INTO bdk_schemas VALUES('bdk_localchain',0);
INSERT INTO bdk_schemas VALUES('bdk_txgraph',3);
INSERT INTO bdk_schemas VALUES('bdk_keychaintxout',1);
CREATE TABLE bdk_wallet ( id INTEGER PRIMARY KEY NOT NULL CHECK (id = 0), descriptor TEXT, change_descriptor TEXT, network TEXT ) STRICT;
INSERT INTO bdk_wallet VALUES(0,'tr([1d8f51d0/86''/1''/0'']tpubDCpw327uYnw6goLHe8ftd12LAyiRuBAZM3X1XcFJj3xJ2DQKf4X9frDVAJjowXRu714P74yvFLh8Q85EeqhdT63oRbFk2i7nZACJKL8xyZg/0/*)#xklmu9xx','tr([1d8f51d0/86''/1''/0'']tpubDCpw327uYnw6goLHe8ftd12LAyiRuBAZM3X1XcFJj3xJ2DQKf4X9frDVAJjowXRu714P74yvFLh8Q85EeqhdT63oRbFk2i7nZACJKL8xyZg/1/*)#hz66psk7','regtest');
CREATE TABLE bdk_wallet_locked_outpoints ( txid TEXT NOT NULL, vout INTEGER NOT NULL, PRIMARY KEY(txid, vout) ) STRICT;
CREATE TABLE bdk_blocks ( block_height INTEGER PRIMARY KEY NOT NULL, block_hash TEXT NOT NULL ) STRICT;
INSERT INTO bdk_blocks VALUES(0,'0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206');
INSERT INTO bdk_blocks VALUES(1,'3ebff1d93a472791c0d7dd78c37f86b2e4f01b25d42f154b40cb1263d97457b8');
INSERT INTO bdk_blocks VALUES(2,'050985dd02db3f74ae10286527b0740e6857baa30c1fa06123fcdcffe54ef9e1');
INSERT INTO bdk_blocks VALUES(3,'673205bd5776b260c49b7736fd32178633904d7c6503a799e0540bb7c482a421');
CREATE TABLE bdk_txs ( txid TEXT PRIMARY KEY NOT NULL, raw_tx BLOB, last_seen INTEGER , last_evicted INTEGER, first_seen INTEGER) STRICT;
INSERT INTO bdk_txs VALUES('51df1c979d5d4c1a767edde1880e5a3a824d20fa3fdd875236fbabc88287a789',X'020000000102000000000000000000000000000000000000000000000000000000000000000000000000000000000150c3000000000000225120790e7fc0c7fc4d1f26740e6810718016d132bca3947550e8374e0f52388ad1d501000000',NULL,NULL,NULL);
INSERT INTO bdk_txs VALUES('e4b969b0910694f63bf09688ff5ba21131da3f6faf5ddf6b27e11b681f95ba88',X'0200000001030000000000000000000000000000000000000000000000000000000000000000000000000000000001701101000000000022512068bdcb8ee02d9a3aa8b3a5882d8ecfbda0e0d38a86806095c4d0bcd51add1fbd02000000',1796079168,1796079168,1796079168);
CREATE TABLE bdk_txouts ( txid TEXT NOT NULL, vout INTEGER NOT NULL, value INTEGER NOT NULL, script BLOB NOT NULL, PRIMARY KEY (txid, vout) ) STRICT;
INSERT INTO bdk_txouts VALUES('0000000000000000000000000000000000000000000000000000000000000002',0,50007,X'51');
INSERT INTO bdk_txouts VALUES('0000000000000000000000000000000000000000000000000000000000000003',0,70007,X'51');
CREATE TABLE bdk_anchors ( txid TEXT NOT NULL REFERENCES bdk_txs (txid), block_height INTEGER NOT NULL, block_hash TEXT NOT NULL, confirmation_time INTEGER DEFAULT -1 NOT NULL, PRIMARY KEY (txid, block_height, block_hash) ) STRICT;
INSERT INTO bdk_anchors VALUES('51df1c979d5d4c1a767edde1880e5a3a824d20fa3fdd875236fbabc88287a789',2,'050985dd02db3f74ae10286527b0740e6857baa30c1fa06123fcdcffe54ef9e1',1);
CREATE TABLE bdk_descriptor_last_revealed ( descriptor_id TEXT PRIMARY KEY NOT NULL, last_revealed INTEGER NOT NULL ) STRICT;
INSERT INTO bdk_descriptor_last_revealed VALUES('f569210f36faf2a82798e9e9d9e9c5edf289a7a5c757260b7d02e2bffb2bf328',1);
CREATE TABLE bdk_descriptor_derived_spks ( descriptor_id TEXT NOT NULL, spk_index INTEGER NOT NULL, spk BLOB NOT NULL, PRIMARY KEY (descriptor_id, spk_index) ) STRICT;
CREATE TABLE sortie_job (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            created_at INTEGER NOT NULL,
            payer TEXT NOT NULL CHECK (payer IN ('wallet', 'anywhere', 'psbt')),
            carrier TEXT NOT NULL CHECK (carrier IN ('op-return', 'taproot')),
            payload BLOB NOT NULL,
            payload_hash BLOB NOT NULL,
            key_index INTEGER UNIQUE,
            merkle_root BLOB,
            refund BLOB,
            asked_sat INTEGER,
            fee_rate_sat_kwu INTEGER NOT NULL,
            max_fee_sat INTEGER,
            max_fee_rate_sat_kwu INTEGER
        ) STRICT;
CREATE TABLE sortie_event (
            job INTEGER NOT NULL REFERENCES sortie_job (id),
            sequence INTEGER NOT NULL,
            at INTEGER NOT NULL,
            kind TEXT NOT NULL,
            data TEXT NOT NULL CHECK (data ->> 'kind' = kind),
            PRIMARY KEY (job, sequence)
        ) STRICT;
CREATE TABLE sortie_wallet (
                network TEXT NOT NULL,
                birthday INTEGER NOT NULL,
                key_base INTEGER NOT NULL,
                fingerprint TEXT NOT NULL,
                coins_xpub TEXT,
                reveals_xpub TEXT NOT NULL
            ) STRICT;
INSERT INTO sortie_wallet VALUES('regtest',3,0,'1d8f51d0','tpubDCpw327uYnw6goLHe8ftd12LAyiRuBAZM3X1XcFJj3xJ2DQKf4X9frDVAJjowXRu714P74yvFLh8Q85EeqhdT63oRbFk2i7nZACJKL8xyZg','tpubDDp2p9c6Va7EVc9NNhdkWJtNsc9vFHpUoWSvVUrsRH39kbnCHnS9c1FMGYvRHqyPuFxxbM2rnWGDBdb4Asz3C3THwxANHTfAQDDbeTutVN1');
CREATE TABLE sortie_payment (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            script BLOB NOT NULL,
            amount_sat INTEGER NOT NULL,
            fee_sat INTEGER NOT NULL,
            tx BLOB NOT NULL
        ) STRICT;
CREATE TABLE sortie_payment_end (
            payment INTEGER PRIMARY KEY REFERENCES sortie_payment (id),
            at INTEGER NOT NULL,
            outcome TEXT NOT NULL CHECK (outcome IN ('sent', 'refused', 'lost'))
        ) STRICT;
CREATE TABLE sortie_payment_known (
            payment INTEGER PRIMARY KEY REFERENCES sortie_payment (id)
        ) STRICT;
DELETE FROM sqlite_sequence;
CREATE INDEX sortie_job_payload ON sortie_job (payload_hash);
CREATE INDEX sortie_event_closing ON sortie_event (job) WHERE kind = 'final';
CREATE TRIGGER sortie_job_kept BEFORE UPDATE ON sortie_job
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE TRIGGER sortie_job_stays BEFORE DELETE ON sortie_job
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE TRIGGER sortie_event_kept BEFORE UPDATE ON sortie_event
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE TRIGGER sortie_event_stays BEFORE DELETE ON sortie_event
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE INDEX sortie_event_amended ON sortie_event (job) WHERE kind = 'amended';
CREATE TRIGGER sortie_payment_kept BEFORE UPDATE ON sortie_payment
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE TRIGGER sortie_payment_stays BEFORE DELETE ON sortie_payment
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE TRIGGER sortie_payment_end_kept BEFORE UPDATE ON sortie_payment_end
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
CREATE TRIGGER sortie_payment_end_stays BEFORE DELETE ON sortie_payment_end
            BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
COMMIT;
