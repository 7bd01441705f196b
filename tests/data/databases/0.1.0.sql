CREATE TABLE commitment (
	id INTEGER NOT NULL,
	transaction_uid VARCHAR(64) NOT NULL,
	calling_ae VARCHAR(16) NOT NULL,
	received_at DATETIME NOT NULL,
	state VARCHAR(16) NOT NULL,
	attempts INTEGER NOT NULL,
	not_before DATETIME NOT NULL,
	last_error VARCHAR(255),
	PRIMARY KEY (id),
	UNIQUE (transaction_uid, calling_ae)
);
CREATE TABLE commitment_item (
	id INTEGER NOT NULL,
	commitment_id INTEGER NOT NULL,
	sop_class_uid VARCHAR(64) NOT NULL,
	sop_uid VARCHAR(64) NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(commitment_id) REFERENCES commitment (id)
);
CREATE TABLE delivery (
	id INTEGER NOT NULL,
	job_id INTEGER NOT NULL,
	sop_uid VARCHAR(64) NOT NULL,
	kind VARCHAR(16) NOT NULL,
	path VARCHAR(255) NOT NULL,
	destination VARCHAR(64) NOT NULL,
	state VARCHAR(16) NOT NULL,
	attempts INTEGER NOT NULL,
	not_before DATETIME NOT NULL,
	last_status INTEGER,
	last_error VARCHAR(255),
	sent_at DATETIME,
	PRIMARY KEY (id),
	UNIQUE (sop_uid, destination),
	FOREIGN KEY(job_id) REFERENCES job (id)
);
CREATE TABLE enquiry (
	id INTEGER NOT NULL,
	source VARCHAR(64) NOT NULL,
	exam_id INTEGER NOT NULL,
	asked_at DATETIME NOT NULL,
	not_before DATETIME NOT NULL,
	n_unchanged INTEGER NOT NULL,
	n_fetches INTEGER NOT NULL,
	fetch_not_before DATETIME NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (source, exam_id),
	FOREIGN KEY(exam_id) REFERENCES exam (id)
);
CREATE TABLE exam (
	id INTEGER NOT NULL,
	study_uid VARCHAR(64) NOT NULL,
	state VARCHAR(16) NOT NULL,
	has_news BOOLEAN NOT NULL,
	detail TEXT NOT NULL,
	version INTEGER NOT NULL,
	first_arrival_at DATETIME NOT NULL,
	last_arrival_at DATETIME NOT NULL,
	patient_key VARCHAR(64),
	study_date VARCHAR(64),
	awaiting TEXT,
	joined_to INTEGER,
	PRIMARY KEY (id),
	UNIQUE (study_uid)
);
CREATE TABLE instance (
	id INTEGER NOT NULL,
	sop_uid VARCHAR(64) NOT NULL,
	sop_class_uid VARCHAR(64) NOT NULL,
	study_uid VARCHAR(64) NOT NULL,
	series_uid VARCHAR(64) NOT NULL,
	transfer_syntax VARCHAR(64) NOT NULL,
	path VARCHAR(255) NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	size_bytes INTEGER NOT NULL,
	calling_ae VARCHAR(16) NOT NULL,
	received_at DATETIME NOT NULL,
	facts JSON,
	state VARCHAR(16) NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (sop_uid, sha256)
);
CREATE TABLE job (
	id INTEGER NOT NULL,
	exam_id INTEGER NOT NULL,
	version INTEGER NOT NULL,
	state VARCHAR(16) NOT NULL,
	inputs JSON NOT NULL,
	inputs_digest VARCHAR(64) NOT NULL,
	calling_ae VARCHAR(16) NOT NULL,
	protocol VARCHAR(256) NOT NULL,
	attempts INTEGER NOT NULL,
	created_at DATETIME NOT NULL,
	lease_until DATETIME,
	worker VARCHAR(64),
	started_at DATETIME,
	finished_at DATETIME,
	verdict VARCHAR(16),
	error TEXT,
	predecessor INTEGER,
	lowest_disc VARCHAR(8),
	correction VARCHAR(255),
	PRIMARY KEY (id),
	UNIQUE (exam_id, version),
	FOREIGN KEY(exam_id) REFERENCES exam (id)
);
CREATE TABLE quarantine (
	id INTEGER NOT NULL,
	code VARCHAR(32) NOT NULL,
	detail TEXT NOT NULL,
	instance_id INTEGER,
	exam_id INTEGER,
	sop_uid VARCHAR(64) NOT NULL,
	path VARCHAR(255) NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	calling_ae VARCHAR(16) NOT NULL,
	created_at DATETIME NOT NULL,
	state VARCHAR(16) NOT NULL,
	resolved_reason TEXT,
	resolved_at DATETIME,
	resolved_by VARCHAR(64),
	PRIMARY KEY (id),
	FOREIGN KEY(instance_id) REFERENCES instance (id),
	FOREIGN KEY(exam_id) REFERENCES exam (id)
);
CREATE TABLE source_answer (
	id INTEGER NOT NULL,
	source VARCHAR(64) NOT NULL,
	study_uid VARCHAR(64) NOT NULL,
	series_uid VARCHAR(64) NOT NULL,
	n_objects INTEGER NOT NULL,
	unchanged_since DATETIME NOT NULL,
	asked_at DATETIME NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (source, study_uid, series_uid)
);
CREATE INDEX delivery_due ON delivery (destination, state, not_before);
CREATE INDEX exam_by_owner ON exam (joined_to);
CREATE INDEX exam_by_patient ON exam (patient_key, study_date);
CREATE INDEX instance_by_state ON instance (state);
CREATE INDEX instance_by_study ON instance (study_uid, state);
CREATE INDEX ix_commitment_item_commitment_id ON commitment_item (commitment_id);
CREATE INDEX ix_commitment_item_sop_uid ON commitment_item (sop_uid);
CREATE INDEX ix_commitment_state ON commitment (state);
CREATE INDEX ix_exam_state ON exam (state);
CREATE INDEX ix_instance_sop_uid ON instance (sop_uid);
CREATE INDEX ix_job_state ON job (state);
CREATE INDEX ix_quarantine_state ON quarantine (state);
CREATE INDEX ix_source_answer_study_uid ON source_answer (study_uid);
