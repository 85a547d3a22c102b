"""pywg top: what each peer of running interfaces does now, again and again.

observe    asks an interface: its peers, its report, its names, the CPU of its process
sampler    two answers of an interface become rates; what was before becomes a history. Pure
table      which peers are shown, and in which order. Pure
words      figures as short texts, histories as small bars. Pure
plain      one table and no terminal; JSON
app        the live view; peers and details are what it is made of. Only these know textual

Works on whatever `pywg show` works on, with what that has to tell.
"""
