"""The S3 side of the gateway: which operation a request is, who may do it, and the request that the S3 gets instead.

operations     the operations of S3, and all that a request to each may carry (pure)
reading        which operation a request is, and what of it goes on (pure)
needs          which actions on which resources its caller must be allowed, what conditions may ask of it (pure)
errors         refusals that several of the others make (pure)
error_replies  all refusals, in S3's form (pure)
documents      XML of clients, read and rendered anew (pure)
signing        the request anew, for the account that it is made for
chunks         the signatures inside of an aws-chunked body
admission      the decision, and the account
relay          an operation on its way to the S3 and back
collected      operations whose body is taken in before anything is relayed, and what the controller answers
described      those whose body says what decides them: the tags of an object, the place of a bucket
deletions      DeleteObjects, which is decided key by key
forms          uploads from HTML forms (POST), whose signature is in the body
existing_tags  an object's tags, read first where a policy asks for them
"""
