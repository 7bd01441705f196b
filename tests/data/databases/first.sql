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
CREATE TABLE exam (
	id INTEGER NOT NULL,
	study_uid VARCHAR(64) NOT NULL,
	state VARCHAR(16) NOT NULL,
	has_news BOOLEAN NOT NULL,
	detail TEXT NOT NULL,
	version INTEGER NOT NULL,
	first_arrival_at DATETIME NOT NULL,
	last_arrival_at DATETIME NOT NULL,
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
	protocol VARCHAR(64) NOT NULL,
	attempts INTEGER NOT NULL,
	created_at DATETIME NOT NULL,
	lease_until DATETIME,
	worker VARCHAR(64),
	started_at DATETIME,
	finished_at DATETIME,
	verdict VARCHAR(16),
	error TEXT,
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
	PRIMARY KEY (id),
	FOREIGN KEY(instance_id) REFERENCES instance (id),
	FOREIGN KEY(exam_id) REFERENCES exam (id)
);
CREATE INDEX delivery_due ON delivery (destination, state, not_before);
CREATE INDEX instance_by_state ON instance (state);
CREATE INDEX instance_by_study ON instance (study_uid, state);
CREATE INDEX ix_exam_state ON exam (state);
CREATE INDEX ix_instance_sop_uid ON instance (sop_uid);
CREATE INDEX ix_job_state ON job (state);
CREATE INDEX ix_quarantine_state ON quarantine (state);
