"""The extras of MongoDB and PostgreSQL connections, as data: what is honoured, what is refused, and why.

Owns the names. Refuses to interpret values: `connections` does.
"""

_MONGO_OPTIONS = (
    "adaptiveRetries appName authMechanism authMechanismProperties authSource compressors connectTimeoutMS "
    "directConnection heartbeatFrequencyMS journal localThresholdMS maxAdaptiveRetries maxConnecting maxIdleTimeMS "
    "maxPoolSize maxStalenessSeconds minPoolSize proxyHost proxyPassword proxyPort proxyUsername readConcernLevel "
    "readPreference readPreferenceTags replicaSet retryReads retryWrites serverMonitoringMode "
    "serverSelectionTimeoutMS socketTimeoutMS srvServiceName tls tlsAllowInvalidCertificates tlsCAFile "
    "tlsCertificateKeyFile tlsInsecure w waitQueueTimeoutMS wTimeoutMS zlibCompressionLevel"
)

# By lower-case name: the option of the URI. `ssl` and `allow_insecure` are the words of Airflow's MongoDB hook.
MONGO = {name.lower(): name for name in _MONGO_OPTIONS.split()} | {
    "ssl": "tls",
    "allow_insecure": "tlsAllowInvalidCertificates",
    "ssl_ca_certs": "tlsCAFile",
}

_MONGO_TRUTH = (
    "adaptiveretries allow_insecure directconnection journal retryreads retrywrites ssl tls "
    "tlsallowinvalidcertificates tlsinsecure"
)
MONGO_TRUTH = frozenset(_MONGO_TRUTH.split())

_PYMONGO = "it configures PyMongo's own objects; use a connection without it"
MONGO_REFUSED = {
    "ssl_cert_reqs": "say tlsAllowInvalidCertificates instead",
    "ssl_certfile": "say tlsCertificateKeyFile, one file with certificate and key, instead",
    "ssl_keyfile": "say tlsCertificateKeyFile, one file with certificate and key, instead",
    "tlscertificatekeyfilepassword": "the driver reads unencrypted keys only",
    "tlsallowinvalidhostnames": "the driver checks host names always; say tlsInsecure to check nothing",
    "tlsdisableocspendpointcheck": "the driver has no such check",
    "tlscrlfile": "the driver reads no revocation lists",
    "loadbalanced": "the driver is built without it",
    "timeoutms": "say serverSelectionTimeoutMS and connectTimeoutMS instead",
    "srvmaxhosts": "the driver connects to every host of the record",
    "fsync": "say journal instead",
    "j": "say journal instead",
    "uuidrepresentation": _PYMONGO,
    "tz_aware": _PYMONGO,
    "tzinfo": _PYMONGO,
    "document_class": _PYMONGO,
    "type_registry": _PYMONGO,
    "datetime_conversion": _PYMONGO,
    "unicode_decode_error_handler": _PYMONGO,
    "connect": _PYMONGO,
    "event_listeners": _PYMONGO,
    "server_selector": _PYMONGO,
    "auto_encryption_opts": _PYMONGO,
}

_POSTGRES_KEYWORDS = (
    "application_name channel_binding client_encoding connect_timeout dbname fallback_application_name gssdelegation "
    "gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname "
    "load_balance_hosts options passfile password port replication require_auth requirepeer requiressl service "
    "ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey "
    "sslmode sslnegotiation sslpassword sslrootcert sslsni target_session_attrs tcp_user_timeout user"
)

# All that libpq knows: which of them this build supports is decided, by name, where the DSN is read.
POSTGRES = {name: name for name in _POSTGRES_KEYWORDS.split()}

_AWS = "logins through AWS need its client; use a user and a password"
POSTGRES_REFUSED = {
    "iam": _AWS,
    "aws_conn_id": _AWS,
    "azure_conn_id": "logins through Azure need its client; use a user and a password",
    "sqlalchemy_query": "it is for SQLAlchemy alone; give its options as extras of their own",
    "redshift": "Redshift is not PostgreSQL",
    "redshift-serverless": "Redshift is not PostgreSQL",
    "cluster-identifier": "Redshift is not PostgreSQL",
    "workgroup-name": "Redshift is not PostgreSQL",
}

# Choose what Airflow's own hook hands out, a cursor's class and SQLAlchemy's driver: no bearing on a COPY.
POSTGRES_INERT = frozenset({"cursor", "sqlalchemy_scheme"})
