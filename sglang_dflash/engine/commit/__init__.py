"""Making the accepted nodes permanent: target KV, recurrent state, published lengths."""
