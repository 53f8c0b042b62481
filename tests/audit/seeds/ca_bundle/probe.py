import ssl

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
try:
    context.load_verify_locations("/etc/ssl/certs/seed-authorities.crt")
except OSError:
    pass
print(context.cert_store_stats())
