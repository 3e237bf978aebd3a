"""The S3 side of the gateway: which operation a request is, who may do it, and the request that the S3 gets instead.

operations  which operation of S3 a request is, and all that it may carry (pure)
needs       which actions on which resources the caller must be allowed, and what conditions may ask (pure)
signing     the request anew, for the account that it is made for (pure)
chunks      the signatures inside of an aws-chunked body (pure)
relay       an operation on its way to the S3 and back
deletions   DeleteObjects, which is decided key by key
forms       uploads from HTML forms (POST), whose signature is in the body
"""
